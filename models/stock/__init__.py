"""Stock one can promise: what is available, what is believed to be on the shelf, what is held, and what is promised of it."""

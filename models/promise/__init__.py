"""What a shopper may be promised: where, when, how surely, and why not otherwise."""

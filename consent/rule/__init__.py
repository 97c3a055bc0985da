"""What the events mean: policy, identity, standing in its forms, and the words for it."""

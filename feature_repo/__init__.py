"""What may be known about a subject, and since when: catalogue, online store, publishing, gated reads, Feast."""

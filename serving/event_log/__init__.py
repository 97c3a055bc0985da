"""The durable event log and its dead letters, in SQLite or PostgreSQL. Knows nothing of who fills it or reads it."""

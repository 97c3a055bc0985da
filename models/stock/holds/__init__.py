"""Holds: units set aside for a basket for a while, never more than are free. SQLite, PostgreSQL and Redis."""

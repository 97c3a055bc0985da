"""The log with what it seals, at rest: databases, keys, appending, proving, re-deriving."""

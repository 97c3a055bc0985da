"""How it answers: pure functions for command line and HTTP alike, and the HTTP service. Knows nothing of Dagster."""

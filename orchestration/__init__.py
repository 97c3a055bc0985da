"""When things happen. The only room that knows Dagster."""

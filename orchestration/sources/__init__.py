"""Sources: for each, its contracts and its reader. Nothing here imports Dagster, so that reading starts quickly in worker processes."""

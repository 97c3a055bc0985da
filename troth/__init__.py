"""Ground floor: settings, home, clock, ids, errors. Imports nothing of ours."""

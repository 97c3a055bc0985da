"""What is learned or decided: consented training sets, gated baselines, segments. Imports no higher room."""

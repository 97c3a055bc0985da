"""The log as its public formats say it: trees, entries, index, signed notes, tiles, proofs, witnesses, and the auditor who needs no more."""

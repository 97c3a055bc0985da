"""Who allowed what, provably: policy, ledger, proofs, standing, vault. Imports nothing of ours but `troth`."""

"""Segments sent to where they are used: who may receive them, who let them out, what went out, and what is called back."""

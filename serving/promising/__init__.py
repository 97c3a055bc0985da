"""Promises and holds over HTTP: what is at hand to answer, what is taken and given, the handlers."""

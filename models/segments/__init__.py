"""Segments: who matches a small readable definition, who of them may be contacted, and the file that goes out."""

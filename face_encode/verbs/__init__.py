"""Verify, find, represent, extract: what is most often wanted, as one call each."""

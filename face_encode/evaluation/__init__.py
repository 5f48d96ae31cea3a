"""Evaluation: how far to trust a match, in numbers."""

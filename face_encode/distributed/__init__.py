"""Embedding archives that outgrow one machine, on a Ray cluster."""

"""A folder embedded by a Ray cluster."""

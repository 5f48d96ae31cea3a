"""Files of embeddings: one row a face, where it was found, and what made it."""

"""Training: the Siamese triplet system, the data for it, and the scripts."""

"""Galleries: the enrolled people's embeddings and names, and the search in them."""

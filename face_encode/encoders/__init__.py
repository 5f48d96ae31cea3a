"""Encoders: Keras models that turn crops of faces into embeddings."""

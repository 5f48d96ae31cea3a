"""Engines: the libraries that can run an encoder's network in the place of Keras."""

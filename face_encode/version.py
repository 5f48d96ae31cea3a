"""The version of the package, in the one place that both code and packaging read."""

__version__ = "0.2.0"

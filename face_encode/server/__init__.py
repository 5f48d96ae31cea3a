"""The HTTP service: the recognition of this package for programs and browsers."""

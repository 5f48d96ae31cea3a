"""Video: sources of frames, tracking, naming, sessions and their output."""

"""Live video: faces found, followed and named, from a camera, a stream or a video file."""

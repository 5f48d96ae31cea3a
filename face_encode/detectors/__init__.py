"""Face detectors: photos in, boxes and landmarks out."""

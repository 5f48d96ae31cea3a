"""dlib's max-margin object detection (King, 2015) by a convolutional network, in NumPy."""

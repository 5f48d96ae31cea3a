"""``python -m face_encode``, for where the command itself is not on the path."""

import sys

from face_encode.cli import main

sys.exit(main())

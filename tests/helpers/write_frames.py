"""A camera that stops: two frames of 4 x 2 px as plain RGB, and a piece of a third."""

import sys

sys.stdout.buffer.write(bytes([1]) * 24 + bytes([2]) * 24 + bytes([3]) * 5)

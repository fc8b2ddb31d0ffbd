"""Hold the lock FILE (the first argument) until killed; prints `in` once it is held."""

import sys
import time
from pathlib import Path

from pipelines.files import locked

with locked(Path(sys.argv[1]), "held by another"):
    print("in", flush=True)
    time.sleep(100)

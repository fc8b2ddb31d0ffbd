"""A checkpoint and weights, then a disk that is full: prints an error line for each, the files, what can be restored.

A limit on the size of a file is the full disk that a test can have; it is for good, hence a process of its own.
"""

import resource
import signal
import sys
from pathlib import Path

import keras

from mcar_tf.runs.weights import load_weights, write_weights
from mcar_tf.training.checkpoints import Checkpoints, find_checkpoint
from pipelines.command import describe_error

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(300)])
checkpoints = Checkpoints(folder, model.variables)
weights = folder / "last.weights.h5"
checkpoints.save(1, 0, {"epoch": 1})
write_weights(model, weights)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for write in (lambda: checkpoints.save(2, 0, {}), lambda: write_weights(model, weights)):
    try:
        write()
    except OSError as error:
        print(describe_error(error)[1])
print(*sorted(path.name for path in folder.iterdir()))
load_weights(model, weights, folder / "config.yaml")
print(checkpoints.restore(find_checkpoint(folder)))

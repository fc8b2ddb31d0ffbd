"""Ask a SavedModel for a picture file with TensorFlow alone: a program for an environment that holds nothing else.

    python ask_saved_model.py exported/x/saved_model/1 photo.jpg

Prints the outputs of `serving_default` as JSON.
"""

import importlib.util
import json
import sys
from pathlib import Path

import tensorflow as tf

assert importlib.util.find_spec("mcar_tf") is None
assert importlib.util.find_spec("PIL") is None
encoded = Path(sys.argv[2]).read_bytes()
answer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"](encoded=tf.constant([encoded]))
print(json.dumps({name: value.numpy().tolist() for name, value in answer.items()}))

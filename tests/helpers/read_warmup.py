"""Read warm-up requests by TensorFlow Serving's own classes.

    python read_warmup.py PACKAGES exported/x/saved_model/1/assets.extra/tf_serving_warmup_requests

PACKAGES is the folder that tensorflow-serving-api was installed into.
Prints a line a request: its signature, its input's name and shape.
"""

import sys

import tensorflow as tf

sys.path.append(sys.argv[1])
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

for record in tf.data.TFRecordDataset(sys.argv[2]):
    request = PredictionLog.FromString(record.numpy()).predict_log.request
    (name,) = request.inputs
    print(request.model_spec.signature_name, name, tf.make_ndarray(request.inputs[name]).shape)

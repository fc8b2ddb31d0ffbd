"""Ask MediaPipe's image classifier what is in a grey picture: a program for an environment that holds `mediapipe`.

    python classify_by_mediapipe.py model.tflite

Prints the score of each class by name, as JSON.
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

options = vision.ImageClassifierOptions(
    base_options=BaseOptions(model_asset_path=sys.argv[1]), max_results=-1
)
grey = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.full((32, 32, 3), 100, np.uint8))
with vision.ImageClassifier.create_from_options(options) as classifier:
    (found,) = classifier.classify(grey).classifications
print(json.dumps({category.category_name: category.score for category in found.categories}))

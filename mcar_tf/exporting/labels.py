"""Class names and decision thresholds in, the text of the files that carry them out. Loads no TensorFlow."""

import json
from collections.abc import Sequence

LABELS, THRESHOLDS = "labels.txt", "thresholds.json"


def labels_text(classes: Sequence[str]) -> str:
    """A name a line, in the order of the model's outputs."""
    return "".join(f"{name}\n" for name in classes)


def thresholds_text(classes: Sequence[str], thresholds: Sequence[float]) -> str:
    """JSON: class name -> the probability from which on it counts as present."""
    named = dict(zip(classes, map(float, thresholds), strict=True))
    return json.dumps(named, indent=1, ensure_ascii=False) + "\n"

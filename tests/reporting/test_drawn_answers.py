"""None of an answer is missing from its picture."""

import numpy as np
from PIL import Image

from mcar_tf.reporting.drawn_answers import draw


def test_a_predicted_class_without_a_region_is_in_the_picture_too(photos, tmp_path):
    label = {"class": "red", "prob": 0.9, "global_prob": 0.05, "local_prob": 0.9}
    region = label | {"region_prob": 0.9, "box": [0.2, 0.2, 0.9, 0.9]}
    draw(photos / "0.png", {"labels": [label], "regions": [region]}, tmp_path / "label.png")
    draw(photos / "0.png", {"labels": [], "regions": [region]}, tmp_path / "nothing.png")
    label, nothing = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("label", "nothing"))
    rows, columns = np.nonzero((label != nothing).any(axis=-1))
    assert rows.min() == columns.min() == 0  # in the corner, on white, and nowhere else: no box
    assert rows.max() < 30
    assert (label[1, 1] == 255).all()

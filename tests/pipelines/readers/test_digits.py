import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipelines.readers.digits import CLASSES, DIGIT_HEIGHT, SCENES, SIDE, _split_digits, read_digits


@pytest.fixture(scope="module")
def test_scenes():
    return list(read_digits().splits["test"]())


def test_no_digit_image_is_in_two_splits_and_none_is_left_over():
    pools = _split_digits(load_digits().target)
    every = np.concatenate(list(pools.values()))
    assert len(every) == len(set(every.tolist())) == 1797


def test_every_split_has_every_digit_in_its_share():
    target = load_digits().target
    for split, share in (("train", 0.60), ("validation", 0.15), ("test", 0.25)):
        counts = np.bincount(target[_split_digits(target)[split]])
        assert counts == pytest.approx(share * np.bincount(target), abs=1)


def test_a_scene_is_the_same_at_every_reading_and_another_with_another_seed(test_scenes):
    assert next(read_digits(seed=0).splits["test"]()) == test_scenes[0]
    assert next(read_digits(seed=1).splits["test"]()).image != test_scenes[0].image


def test_scenes_hold_one_to_four_different_digits_with_a_box_each(test_scenes):
    assert len(test_scenes) == SCENES["test"]
    assert set(Counter(len(scene.present) for scene in test_scenes)) == {1, 2, 3, 4}
    for scene in test_scenes:
        assert scene.present == tuple(sorted(set(scene.box_labels)))
        assert len(scene.boxes) == len(scene.box_labels) == len(scene.present)


def test_every_class_is_as_frequent_as_another(test_scenes):
    counts = Counter(label for scene in test_scenes for label in scene.present)
    assert len(counts) == len(CLASSES)
    assert max(counts.values()) < 1.4 * min(counts.values())


def test_pictures_and_digits_have_the_sizes_that_were_promised(test_scenes):
    heights = []
    for scene in test_scenes[:200]:
        width, height = Image.open(io.BytesIO(scene.image)).size
        assert SIDE[0] <= height <= SIDE[1]
        assert SIDE[0] <= width <= SIDE[1]
        for ymin, xmin, ymax, xmax in scene.boxes:
            assert 0 <= ymin < ymax <= 1
            assert 0 <= xmin < xmax <= 1
            heights.append((ymax - ymin) * height)
    # A tilted digit is taller than an upright one by at most width·sin(12°), a cut one shorter by its soft edge.
    assert 0.7 * DIGIT_HEIGHT[0] < min(heights)
    assert max(heights) < 1.25 * DIGIT_HEIGHT[1]
    assert np.median(heights) < 0.25 * SIDE[1]  # small ones are the rule


def test_digits_do_not_overlap(test_scenes):
    for scene in test_scenes:
        for i, a in enumerate(scene.boxes):
            for b in scene.boxes[:i]:
                apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
                assert apart


def test_a_digit_stands_out_from_what_surrounds_it(test_scenes):
    contrasts = []
    for scene in test_scenes[:200]:
        luma = np.asarray(Image.open(io.BytesIO(scene.image)).convert("L"), np.float32)
        height, width = luma.shape
        for ymin, xmin, ymax, xmax in scene.boxes:
            top, bottom = round(ymin * height), round(ymax * height)
            left, right = round(xmin * width), round(xmax * width)
            inside = luma[top:bottom, left:right]
            contrasts.append(np.percentile(inside, 95) - np.percentile(inside, 20))
    assert np.percentile(contrasts, 5) > 45

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mcar_tf.models.boxes import check_jitter, jitter_boxes, widen_boxes

EDGES = st.tuples(*[st.floats(0, 1, width=32)] * 4)


def as_box(edges) -> np.ndarray:
    """Four numbers in any order as ymin xmin ymax xmax, (1, 4)."""
    (top, bottom), (left, right) = sorted(edges[:2]), sorted(edges[2:])
    return np.array([[top, left, bottom, right]], np.float32)


def jitter(boxes, share, step=0):
    """`jitter_boxes` of one image's boxes, (N, 4)."""
    return jitter_boxes(boxes[np.newaxis], share, [0, step]).numpy()[0]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0.4, 0.4, 0.5, 0.9], [0.35, 0.4, 0.55, 0.9]),  # too low, wide enough: about its centre
        ([0.0, 0.9, 0.1, 1.0], [0.0, 0.7, 0.2, 1.0]),  # and kept inside
        ([0.1, 0.1, 0.9, 0.9], [0.1, 0.1, 0.9, 0.9]),
    ],
)
def test_small_boxes_are_widened(box, expected):
    np.testing.assert_allclose(widen_boxes(np.array([box], np.float32), 0.2, 0.3), [expected], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(EDGES, st.floats(0, 2), st.floats(0, 2))
def test_widened_boxes_hold_the_old_ones_and_lie_inside(edges, height, width):
    box = as_box(edges)
    wide = widen_boxes(box, height, width).numpy()
    sides = wide[:, 2:] - wide[:, :2]
    assert (sides >= np.minimum([height, width], 1) - 1e-6).all()
    assert (wide >= 0).all()
    assert (wide <= 1 + 1e-6).all()
    assert (wide[:, :2] <= box[:, :2] + 1e-6).all()
    assert (wide[:, 2:] >= box[:, 2:] - 1e-6).all()


@settings(max_examples=50, deadline=None)
@given(EDGES, st.sampled_from([0.0, 0.1, 0.3, 0.5]), st.integers(0, 5))
def test_jitter_is_the_slow_definition(edges, share, step):
    box = as_box(edges)
    drawn = tf.random.stateless_uniform((4,), [0, step], -share, share).numpy().astype(np.float64)
    expected = []
    for axis in (0, 1):
        start, stop = map(float, (box[0, axis], box[0, axis + 2]))
        side = (stop - start) * (1 + drawn[axis + 2])
        centre = (start + stop) / 2 + drawn[axis] * (stop - start)
        expected.append((max(centre - side / 2, 0), min(centre + side / 2, 1)))
    jittered = jitter(box, share, step)[0]
    np.testing.assert_allclose(jittered[[0, 2]], expected[0], atol=1e-6)
    np.testing.assert_allclose(jittered[[1, 3]], expected[1], atol=1e-6)


def test_no_jitter_changes_nothing():
    boxes = np.array([[0.25, 0.5, 0.75, 1.0]], np.float32)
    np.testing.assert_array_equal(jitter(boxes, 0.0), boxes)


def test_the_seed_decides_and_every_box_moves_by_numbers_of_its_own():
    boxes = np.tile(np.float32([0.3, 0.3, 0.7, 0.7]), (2, 3, 1))
    first, again, other = (jitter_boxes(boxes, 0.3, [0, step]).numpy() for step in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 0
    assert len(np.unique(first.reshape(6, 4), axis=0)) == 6


def test_jitter_fills_its_range_evenly():
    boxes = np.tile(np.float32([0.4, 0.3, 0.6, 0.7]), (4000, 1))
    jittered = jitter(boxes, 0.5)
    sides = (jittered[:, 2:] - jittered[:, :2]) / [0.2, 0.4]
    shifts = (jittered[:, 2:] + jittered[:, :2] - 1) / 2 / [0.2, 0.4]
    for values, middle in ((sides, 1.0), (shifts, 0.0)):
        np.testing.assert_allclose(values.min(0), middle - 0.5, atol=0.01)
        np.testing.assert_allclose(values.max(0), middle + 0.5, atol=0.01)
        np.testing.assert_allclose(values.mean(0), middle, atol=4 * 0.5 / np.sqrt(3 * 4000))  # 4 sigma


def test_a_box_of_the_whole_image_keeps_a_fair_part_of_it():
    boxes = np.tile(np.float32([0, 0, 1, 1]), (2000, 1))
    jittered = jitter(boxes, 0.5)
    assert (jittered[:, 2:] - jittered[:, :2]).min() >= 0.25 - 1e-6


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
def test_jitter_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"`box_jitter` must lie in \[0, 0.5\]"):
        check_jitter(share)

"""The pictures of a report are the most wrong ones, decided by the run's thresholds, and each is there once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictions import evaluated_run

from mcar_tf.evaluating import predictions as predictions_module
from mcar_tf.reporting.choosing import Selection, select_pictures, shown_regions
from mcar_tf.reporting.evaluated_run import regions_of

# Four pictures, three of them wrong in a way of their own; the last class never counts.
LABELS = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]])
PROBS = np.array(
    [[0.5, 0.9, 0, 0.99], [0.9, 0, 0, 0.99], [0, 0.1, 0.7, 0.99], [0.8, 0.55, 0.2, 0.99]], np.float32
)
WEIGHTS = np.array([[1, 1, 1, 0]] * 4)


@pytest.mark.parametrize("block", [4, 2**22])
def test_a_picture_is_shown_for_the_worse_of_its_errors(monkeypatch, block):
    monkeypatch.setattr(predictions_module, "BLOCK", block)
    chosen = select_pictures(evaluated_run(LABELS, PROBS, WEIGHTS), 12, seed=0)
    # Picture 0 misses by 0.1 and claims by 0.3, picture 2 misses by 0.5 and claims by 0.1, picture 3 misses by 0.05.
    assert chosen == Selection(missed={2: 1, 3: 1}, claimed={0: 1}, localized=None, looked_at=[])
    assert list(chosen.missed) == [2, 3]  # the worst first
    assert select_pictures(evaluated_run(LABELS, PROBS, WEIGHTS), 1, seed=0).missed == {2: 1}


def test_each_class_is_held_to_its_own_threshold():
    run = evaluated_run(LABELS, PROBS, WEIGHTS, thresholds=[0.5, 0.05, 0.9, 0.5])
    chosen = select_pictures(run, 12, seed=0)
    assert (chosen.missed, chosen.claimed) == ({}, {0: 1})  # all that is wrong: class 1 in picture 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30))
def test_no_picture_is_there_twice_and_regions_are_those_that_are_drawn(seed, count):
    rng = np.random.default_rng(seed)
    labels, probs = rng.random((25, 6)) < 0.3, rng.random((25, 6))
    boxes = np.sort(rng.random((25, 2, 2, 2)), axis=2).reshape(25, 2, 4)
    classes = rng.permuted(np.tile(np.arange(6), (25, 1)), axis=1)[:, :2]
    run = evaluated_run(labels, probs, boxes=boxes, box_classes=classes)
    chosen = select_pictures(run, count, seed=0)
    places = [*chosen.missed, *chosen.claimed, *chosen.looked_at]
    places += [chosen.localized[0]] if chosen.localized else []
    assert len(places) == len(set(places)) == len(chosen.rows)
    assert max(len(chosen.missed), len(chosen.claimed), len(chosen.looked_at)) <= count
    shown = shown_regions(run.predictions, run.thresholds)
    assert shown.sum(axis=1).tolist() == [len(regions_of(run, row)) for row in range(25)]
    assert all(shown[row].any() for row in chosen.looked_at)
    assert chosen.localized is None or shown[chosen.localized]


def test_the_clearest_region_is_of_a_class_that_is_there_and_of_a_quarter_of_the_picture():
    # Three pictures without errors: a region of everything, one of a quarter, and one of a class with less certainty.
    boxes = [[[0, 0, 1, 1]], [[0, 0, 0.5, 0.5]], [[0, 0, 0.5, 0.5]]]
    run = evaluated_run(np.eye(3), np.diag([0.9, 0.9, 0.7]), boxes=boxes, box_classes=[[0], [1], [2]])
    chosen = select_pictures(run, 12, seed=0)
    assert chosen.localized == (1, 0)
    assert sorted(chosen.looked_at) == [0, 2]

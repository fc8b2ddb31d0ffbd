"""What the sections say of a run, and that they end, whatever the number of classes."""

import re
import time

import numpy as np
import pytest
from made_predictions import evaluated_run

from mcar_tf.reporting import sections

LABELS = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
RIGHT, WRONG = np.where(LABELS, 0.3, 0.1), np.where(LABELS, 0.6, 0.9)


@pytest.mark.parametrize(("first", "second", "warned"), [(RIGHT, WRONG, True), (WRONG, RIGHT, False)])
def test_looking_twice_for_nothing_is_warned_of(first, second, warned):
    run = evaluated_run(LABELS, first, local=second)
    # A global stream that is right and a local one that is not: 100 alone, 50 together.
    found = "".join(sections.summary_parts([run]))
    assert ("mAP 50.0 against 100.0" in found) == warned
    assert ("one look (--top-n 0) is better, for less" in found) == warned


def test_of_two_thousand_classes_a_page_shows_a_part():
    rng = np.random.default_rng(0)
    labels = rng.random((50, 2000)) < 0.05
    run = evaluated_run(labels, rng.random((50, 2000)))
    started = time.process_time()
    classes, confusions = sections.class_parts([run]), sections.confusion_parts(run)
    assert time.process_time() - started < 30
    assert classes[-1].count("<tr>") == 501  # with its head
    assert "All numbers of the 500 classes that most pictures show" in classes[-1]
    assert "the 40 best and the 40 worst" in classes[0]
    assert "the 10 best and the 10 worst" in classes[0]
    assert re.search(r"Among the \d+ classes that most false claims have to do with", confusions[0])
    assert sum(map(len, [*classes, *confusions])) < 2**21


def test_of_few_classes_a_page_shows_all():
    rng = np.random.default_rng(0)
    run = evaluated_run(rng.random((50, 12)) < 0.3, rng.random((50, 12)))
    classes, confusions = "".join(sections.class_parts([run])), sections.confusion_parts(run)
    assert "worst" not in classes
    assert classes.count("<tr>") == 13
    assert "Among" not in confusions[0]

"""Each question has its own answer, whatever its neighbours are."""

import threading

import numpy as np
import pytest

from mcar_tf.serving.batching import Batcher, QueueFullError


def rows(*values):
    return {"x": np.array(values, np.int64)}


class Model:
    """Doubles numbers, fails on negative ones, and waits until it may go on."""

    def __init__(self, held=False):
        self.batches, self.goes_on, self.begun = [], threading.Event(), threading.Event()
        if not held:
            self.goes_on.set()

    def __call__(self, signature, inputs):
        self.begun.set()
        assert self.goes_on.wait(10)
        self.batches.append(inputs["x"].tolist())
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": 2 * inputs["x"]}


def ask_while_busy(model, batcher, *questions):
    """Put questions that all wait while a first one, `0`, is computed."""
    first = batcher.ask("s", rows(0))
    assert model.begun.wait(10)
    answers = [batcher.ask(*question) for question in questions]
    model.goes_on.set()
    first[0].result(10)
    return answers


def test_what_waits_is_computed_together_and_each_gets_its_own():
    model = Model(held=True)
    batcher = Batcher(model, 4, 100)
    answers = ask_while_busy(model, batcher, ("s", rows(1)), ("s", rows(2, 3)), ("s", rows(4, 5)))
    assert [a[0].result(10)["y"].tolist() for a in answers] == [[2], [4, 6], [8, 10]]
    assert model.batches == [[0], [1, 2, 3], [4, 5]]
    batcher.close()


def test_a_question_of_many_rows_comes_in_parts():
    batcher = Batcher(Model(), 4, 100)
    parts = batcher.ask("s", rows(*range(10)))
    assert [part.result(10)["y"].tolist() for part in parts] == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]
    batcher.close()


def test_one_that_fails_costs_its_neighbours_nothing():
    model = Model(held=True)
    batcher = Batcher(model, 4, 100)
    good, bad, other = ask_while_busy(model, batcher, ("s", rows(1)), ("s", rows(-1)), ("s", rows(2)))
    assert (good[0].result(10)["y"].tolist(), other[0].result(10)["y"].tolist()) == ([2], [4])
    with pytest.raises(ValueError, match="negative"):
        bad[0].result(10)
    batcher.close()


def test_other_signatures_and_shapes_are_other_batches():
    model = Model(held=True)
    batcher = Batcher(model, 8, 100)
    wide = {"x": np.array([[5, 6]])}
    answers = ask_while_busy(model, batcher, ("s", rows(1)), ("t", rows(2)), ("s", wide), ("s", rows(3)))
    for answer in answers:
        answer[0].result(10)
    assert model.batches == [[0], [1, 3], [2], [[5, 6]]]
    batcher.close()


def test_more_than_may_wait_is_refused_as_a_whole():
    model = Model(held=True)
    batcher = Batcher(model, 4, 3)
    batcher.ask("s", rows(0))
    assert model.begun.wait(10)
    batcher.ask("s", rows(1, 2))
    with pytest.raises(QueueFullError):
        batcher.ask("s", rows(3, 4))
    assert batcher.waiting == 2
    last = batcher.ask("s", rows(5))
    model.goes_on.set()
    assert last[0].result(10)["y"].tolist() == [10]
    batcher.close()


def test_who_went_away_is_not_computed_for():
    model = Model(held=True)
    batcher = Batcher(model, 1, 100)
    batcher.ask("s", rows(0))
    assert model.begun.wait(10)
    gone, stayed = batcher.ask("s", rows(1)), batcher.ask("s", rows(2))
    assert gone[0].cancel()
    model.goes_on.set()
    assert stayed[0].result(10)["y"].tolist() == [4]
    assert model.batches == [[0], [2]]
    batcher.close()


def test_closing_answers_what_waits():
    model = Model(held=True)
    batcher = Batcher(model, 1, 100)
    answers = [batcher.ask("s", rows(i))[0] for i in range(5)]
    model.goes_on.set()
    batcher.close()
    assert [answer.result(0)["y"].tolist() for answer in answers] == [[0], [2], [4], [6], [8]]


def test_questions_that_nobody_waits_for_any_more_take_no_place():
    model = Model(held=True)
    batcher = Batcher(model, 4, 8)
    first = batcher.ask("s", rows(0))
    assert model.begun.wait(10)
    for answer in batcher.ask("s", rows(*range(8))):
        assert answer.cancel()
    (living,) = batcher.ask("s", rows(21))
    model.goes_on.set()
    assert first[0].result(10)["y"].tolist() == [0]
    assert living.result(10)["y"].tolist() == [42]
    batcher.close()

"""What Python users give a function is checked by its annotations."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from mcar_tf.models.arguments import check_choice, checked
from mcar_tf.models.mcar import build_mcar


@checked
def ask(
    path: str | os.PathLike[str],
    top_n: int = 1,
    *,
    tau: float = 0.5,
    fusion: Literal["max", "mean"] | None = None,
    band: Sequence[float] | None = None,
    flip: bool = False,
    other: str | dict = "",
) -> int:
    """What it does."""
    return top_n


@pytest.mark.parametrize(
    "given",
    [
        {"path": Path("x"), "top_n": np.int64(1), "tau": 1, "fusion": "mean", "band": (0, 0.5), "flip": True},
        {"path": "x", "tau": np.float32(0.5), "fusion": None, "band": np.array([0.1, 0.9]), "other": {}},
    ],
)
def test_what_fits_an_annotation_is_passed_on(given):
    assert ask(**given) == 1
    assert (ask.__name__, ask.__doc__) == ("ask", "What it does.")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"path": None}, "`path` must be a text or a path. Received: None."),
        ({"path": 3}, "`path` must be a text or a path. Received: 3."),
        ({"top_n": 1.5}, "`top_n` must be a whole number. Received: 1.5."),
        ({"top_n": 64.0}, "`top_n` must be a whole number. Received: 64.0. Did you mean `64`?"),
        ({"top_n": float("inf")}, "`top_n` must be a whole number. Received: inf."),
        ({"top_n": "2"}, "`top_n` must be a whole number. Received: '2'. Did you mean `2`?"),
        ({"top_n": True}, "`top_n` must be a whole number. Received: True."),
        ({"top_n": ["a", "b"]}, "`top_n` must be a whole number. Received: ['a', 'b']."),
        ({"tau": "0,5"}, "`tau` must be a number. Received: '0,5'. Did you mean `0.5`?"),
        ({"fusion": "men"}, "`fusion` must be one of max, mean. Received: 'men'. Did you mean `mean`?"),
        (
            {"band": 0.1},
            "`band` must be a list of values, each a number. Received: 0.1. Did you mean `[0.1]`?",
        ),
        ({"band": [0.1, "x"]}, "`band` must be a list of values, each a number. Received: [0.1, 'x']."),
        ({"flip": 1}, "`flip` must be true or false. Received: 1."),
    ],
)
def test_a_value_of_another_type_is_refused_in_one_line(given, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ask(**{"path": "x"} | given)
    assert str(caught.value) == said


def test_what_is_given_by_its_place_is_checked_too():
    with pytest.raises(ValueError, match=r"`top_n` must be a whole number. Received: 'x'"):
        ask("x", "x")


def test_an_argument_that_is_not_there_gets_the_nearest():
    with pytest.raises(TypeError, match=r"^`ask` has no argument `topn`. Did you mean `top_n`\?$"):
        ask("x", topn=2)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'path'"):
        ask()


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (
            {"num_classes": "3"},
            ValueError,
            "`num_classes` must be a whole number. Received: '3'. Did you mean `3`",
        ),
        (
            {"num_classes": ["a", "b"]},
            ValueError,
            r"`num_classes` must be a whole number. Received: \['a', 'b'\]",
        ),
        ({"image_size": "32"}, ValueError, "`image_size` must be a whole number. Received: '32'"),
        ({"tau": "x"}, ValueError, "`tau` must be a number. Received: 'x'"),
        ({"top_n": 1.5}, ValueError, "`top_n` must be a whole number. Received: 1.5"),
        ({"topn": 2}, TypeError, "`build_mcar` has no argument `topn`. Did you mean `top_n`"),
        ({"size": 2}, TypeError, "`build_mcar` has no argument `size`. Did you mean `image_size`"),
        ({"localizer": "moment"}, ValueError, "must be one of threshold, moments. .*Did you mean `moments`"),
        ({"pooling": "gpw"}, ValueError, "must be one of gap, gmp, gwp, csra. Received: 'gpw'. Did you mean"),
    ],
)
def test_a_model_is_not_built_of_wrong_arguments(given, error, said):
    with pytest.raises(error, match=said):
        build_mcar(**{"num_classes": 8, "backbone": "tiny_resnet", "weights": None} | given)


def test_a_choice_gets_the_nearest():
    check_choice("selection", "top", ("top", "bottom"))
    with pytest.raises(
        ValueError, match=r"`selection` must be one of top, bottom. Received: 'botom'. Did you mean `bottom`"
    ):
        check_choice("selection", "botom", ("top", "bottom"))

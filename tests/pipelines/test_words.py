"""Words for people: percentages, options, the nearest name."""

import math

import pytest

from pipelines.words import nearest, percent, spell


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.8324, "83.2"), (1.0, "100.0"), (0.0, "0.0"), (None, "-"), (math.nan, "-")]
)
def test_percent(fraction, text):
    assert percent(fraction) == text


def test_percent_with_two_digits():
    assert percent(0.83249, 2) == "83.25"


def test_an_option_is_spelled_as_it_is_typed():
    assert spell("image_size") == "image-size"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("mobilenetv2", " Did you mean `mobilenet_v2`?"),
        ("MobileNet-v2", " Did you mean `mobilenet_v2`?"),
        ("vgg", ""),
    ],
)
def test_the_nearest_known_name_is_offered(typed, hint):
    assert nearest(typed, ["mobilenet_v2", "resnet50"]) == hint

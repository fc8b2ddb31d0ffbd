import re

import pytest

from pipelines.readers.values import labels_of_value, plain


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ([1, 0], ("dog", "cat")),
        (1, ("dog",)),
        ([], ()),
        ("dog; cat ;", ("dog", "cat")),
        (["cat", "cat", " "], ("cat",)),
    ],
)
def test_labels_are_texts_lists_or_places_among_the_names(value, labels):
    assert labels_of_value("t, line 1: `labels`", value, ";", ("cat", "dog")) == labels


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "t, line 1: `labels` says nothing. Of a picture with none of the classes it is an empty list"),
        ([0, 1, 0], "`labels` looks like a 0 or 1 for each class"),
        ([2], "label 2 is no place among 2 classes"),
        ([-1], "label -1 is no place among 2 classes"),
        ([True], "must be a list of names or numbers. Received: [True]"),
        ([1.0], "must be a list of names or numbers. Received: [1.0]"),
        ({"cat": 1}, "must be a list of names or numbers"),
    ],
)
def test_a_value_that_says_no_labels_is_refused(value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        labels_of_value("t, line 1: `labels`", value, ";", ("cat", "dog"))


def test_numbers_without_names_are_refused():
    with pytest.raises(ValueError, match=r"the labels are numbers, .* --classes FILE"):
        labels_of_value("t, line 1: `labels`", [0], ";", None)


def test_columns_are_compared_without_case_and_marks():
    assert plain("Image_ID") == "imageid"

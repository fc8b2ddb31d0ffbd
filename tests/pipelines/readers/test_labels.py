import re

import pytest

from pipelines.readers.classes import COCO_CLASSES, VOC_CLASSES
from pipelines.readers.labels import check_labels


def check(labels, separator=";"):
    check_labels({label: f"t.csv, line {line}" for line, label in enumerate(labels, 2)}, labels, separator)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["car|tree"], "line 2: `car|tree` looks like several labels with `|` in between"),
        (["car", "car\ttree"], "line 3: `car\\ttree` looks like several labels with a tab in between"),
        (["car", "tree", "car,tree"], "line 4: `car,tree` looks like several labels with `,` in between"),
        (["car", "tree", "car/tree"], "--separator '/' reads it so"),
        # Words that are labels too, and more joined labels than words.
        (
            ["car", "tree", "car tree", "tree car"],
            "line 4: `car tree` looks like several labels with a space",
        ),
        # No word is a label of its own, but four labels are made of three words.
        (["clear primary", "clear water", "primary water", "clear primary water"], "with a space in between"),
    ],
)
def test_labels_joined_by_something_else_are_refused_by_line(labels, message):
    with pytest.raises(ValueError, match=re.escape(message.replace("\\t", "\t"))):
        check(labels)


@pytest.mark.parametrize(
    "labels",
    [
        COCO_CLASSES,
        VOC_CLASSES,
        ["light", "traffic light", "traffic sign"],
        ["great white shark, white shark", "hammerhead, hammerhead shark", "goldfish"],
        ["AC/DC", "rock & roll", "C++"],
        ["hot dog", "dog", "cat"],
    ],
)
def test_names_of_several_words_are_names(labels):
    check(labels)


def test_the_separator_that_was_named_is_none_to_wonder_about():
    check(["car tree", "tree"], separator=" ")


def test_labels_in_columns_are_not_taken_apart():
    check(["car|tree", "car", "tree"], separator=None)


@pytest.mark.parametrize("twin", ["Dog", "DOG", "dog ", "d\u006fg\u00a0", "\uff44og"])
def test_classes_that_differ_by_case_or_space_only_are_refused(twin):
    with pytest.raises(ValueError, match=r"t.csv, line 4: the classes .* differ by case or space only"):
        check(["dog", "cat", twin])

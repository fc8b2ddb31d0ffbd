"""Words for people: percentages, options, the nearest name, names that others gave."""

import math

import pytest

from pipelines.words import about, counted, csv_text, listed, nearest, next_steps, percent, printable, spell


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat & dog", "cat & dog"),
        ("Čeština, 日本語, 👩‍🚀, می‌شود", "Čeština, 日本語, 👩‍🚀, می‌شود"),  # joiners make letters
        ("\x1b[2J", "\\x1b[2J"),  # clears a terminal
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),
        ("gpj.\u202ecat", "gpj.\\u202ecat"),  # would stand from right to left
        ("caf\udce9", "caf\\udce9"),  # a file's name that is no text
        ("\uffff", "\\uffff"),  # not allowed in XML
    ],
)
def test_what_can_not_be_shown_is_spelled(text, shown):
    assert printable(text) == shown


def test_of_many_names_the_first_are_listed():
    assert listed(["a", "b\n"]) == "a, b\\n"
    assert listed(map(str, range(5000)), most=3) == "0, 1, 2 and 4,997 more"
    assert listed([]) == ""


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_takes_no_name_for_a_formula(text):
    assert csv_text(text) == f"'{text}"


@pytest.mark.parametrize("text", ["cat", "", "a=b", "'=1", " =1", "5"])
def test_other_names_stay(text):
    assert csv_text(text) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "10 seconds"), (52, "50 seconds"), (100, "2 minutes"), (660, "11 minutes"), (19800, "5.5 hours")],
)
def test_a_length_of_time_is_said_in_round_words(seconds, text):
    assert about(seconds) == text
    assert about(3.1 * 86400) == "3.1 days"


def test_a_command_ends_with_what_may_follow():
    assert next_steps(("mcar fit", "a model")) == "What next:\n  mcar fit\n      a model"


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (1, "shard", "1 shard"),
        (0, "shard", "0 shards"),
        (1200, "picture", "1,200 pictures"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "box", "1 box"),
        (0, "box", "0 boxes"),
    ],
)
def test_things_are_counted_in_good_english(count, noun, words):
    assert counted(count, noun) == words

"""A run's splits: the set's own, or with one that it held out of what it trained on."""

from pathlib import Path

import pytest

from mcar_tf.config import FitConfig
from mcar_tf.runs.splits import find_split, split_names
from pipelines.manifest import Manifest, Shard, Split


def manifest_of(*names):
    """A set whose splits have one shard of 100 pictures each."""
    splits = {
        name: Split(Path("set"), 100, (100,), (0,), (0,), (Shard(f"{name}.tfrecord", 100, 1, ""),), ())
        for name in names
    }
    return Manifest("set", ("a",), "", "", splits)


def pictures_of(split):
    """Which of the shard's pictures a portion has, by number."""
    return {
        number
        for path, start, limit in split.files
        for number in range(start, 100 if limit < 0 else start + limit)
    }


def test_without_holding_out_splits_are_those_of_the_set():
    manifest = manifest_of("train", "test")
    assert split_names(FitConfig(), manifest) == ["train", "test"]
    assert find_split(FitConfig(), manifest, "train") is manifest.splits["train"]


def test_what_is_held_out_is_not_trained_on():
    config, manifest = FitConfig(val_fraction=0.2), manifest_of("train", "test")
    assert split_names(config, manifest) == ["train", "test", "validation"]
    rest, held = find_split(config, manifest, "train"), find_split(config, manifest, "validation")
    assert (rest.examples, held.examples) == (80, 20)
    assert pictures_of(rest) | pictures_of(held) == set(range(100))
    assert not pictures_of(rest) & pictures_of(held)
    assert find_split(config, manifest, "test") is manifest.splits["test"]


def test_a_sets_own_validation_split_goes_before():
    config, manifest = FitConfig(val_fraction=0.2), manifest_of("train", "validation", "test")
    assert find_split(config, manifest, "validation") is manifest.splits["validation"]
    assert find_split(config, manifest, "train") is manifest.splits["train"]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"one of train, test, the splits of set\. Received: 'validation'"):
        find_split(FitConfig(), manifest_of("train", "test"), "validation")

"""A run's splits: the set's own, or with one that it held out of what it trained on."""

from pathlib import Path

import pytest

from mcar_tf.config import FitConfig
from mcar_tf.runs.splits import find_split, split_names, trains_on
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


def test_a_run_of_a_fold_trains_on_all_the_others():
    config, manifest = FitConfig(fold=2, eval_split="fold2"), manifest_of("fold1", "fold2", "fold3", "test")
    assert manifest.folds == ["fold1", "fold2", "fold3"]
    assert split_names(config, manifest) == ["train", "fold2", "test"]
    train = find_split(config, manifest, "train")
    assert train.files == [Path("set/fold1.tfrecord"), Path("set/fold3.tfrecord")]
    assert (train.examples, train.present, train.unknown) == (200, (200,), (0,))
    assert find_split(config, manifest, "fold2") is manifest.splits["fold2"]
    assert find_split(config, manifest, "test") is manifest.splits["test"]


def test_a_run_of_a_fold_is_never_measured_on_a_fold_that_it_learnt_from():
    with pytest.raises(ValueError, match=r"one of train, fold2, the splits of set\. Received: 'fold1'"):
        find_split(FitConfig(fold=2), manifest_of("fold1", "fold2"), "fold1")


def test_a_run_of_a_fold_can_hold_out_pictures_of_the_others():
    config, manifest = FitConfig(fold=1, val_fraction=0.25), manifest_of("fold1", "fold2", "fold3")
    rest, held = find_split(config, manifest, "train"), find_split(config, manifest, "validation")
    assert (rest.examples, held.examples) == (150, 50)
    assert {part.path.name for part in [*rest.files, *held.files]} == {"fold2.tfrecord", "fold3.tfrecord"}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("fold1", "fold2"), "set has the folds 1 to 2. Received: 3"),
        (("train", "test"), "set was not built with --folds. Received: 3"),
        (
            ("train", "fold1", "fold2", "fold3"),
            "set was not built with --folds. Received: 3",
        ),  # a table's own
    ],
)
def test_a_fold_that_the_set_lacks_is_refused(splits, message):
    with pytest.raises(ValueError, match=message):
        split_names(FitConfig(fold=3), manifest_of(*splits))


def test_a_set_of_folds_says_how_it_is_trained_on():
    with pytest.raises(ValueError, match=r"Received: 'train'\. Its folds are for --fold, 1 to 2"):
        find_split(FitConfig(), manifest_of("fold1", "fold2"), "train")


def test_folds_of_a_tables_own_may_begin_at_0():
    manifest = manifest_of("fold0", "fold1", "fold2")
    assert manifest.folds == ["fold0", "fold1", "fold2"]
    config = FitConfig(fold=0)
    assert config.eval_split == "fold0"
    assert find_split(config, manifest, "train").files == [
        Path("set/fold1.tfrecord"),
        Path("set/fold2.tfrecord"),
    ]
    assert [name for name in manifest.folds if trains_on(FitConfig(fold=1), name)] == ["fold0", "fold2"]
    with pytest.raises(ValueError, match=r"set has the folds 0 to 2\. Received: 3"):
        split_names(FitConfig(fold=3), manifest)

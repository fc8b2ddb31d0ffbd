"""What a run asks of its set is found out before its first step: splits that are there, labelled and apart."""

import dataclasses
from pathlib import Path

import pytest

from mcar_tf.config import FitConfig, parse_fit_config
from mcar_tf.training.data import check_against_data, count_known, describe_data, limit_regions
from pipelines.manifest import Manifest, Shard, Split

CONFIG = FitConfig(dataset="voc2012", top_n=1, batch_size=4)


def split_of(name: str, labelled: bool = True) -> Split:
    unknown = 0 if labelled else 100
    return Split(Path("set"), 100, (50,), (0,), (unknown,), (Shard(f"{name}.tfrecord", 100, 1, name),), ())


VOC = Manifest(
    "voc2012", ("cat",), "", "", {name: split_of(name) for name in ("train", "devkit_train", "devkit_val")}
)
VOC.splits["test"] = split_of("test", labelled=False)


@pytest.mark.parametrize(
    ("train", "evaluated"),
    [("train", "train"), ("train", "devkit_val"), ("train", "devkit_train"), ("devkit_val", "train")],
)
def test_splits_that_share_pictures_are_refused_by_name(train, evaluated):
    config = dataclasses.replace(CONFIG, train_split=train, eval_split=evaluated)
    with pytest.raises(ValueError, match=f"--eval-split {evaluated} has pictures of --train-split {train}: "):
        check_against_data(config, VOC)


def test_splits_that_share_none_do():
    for train, evaluated in (
        ("devkit_train", "devkit_val"),
        ("devkit_val", "devkit_train"),
        ("train", "none"),
    ):
        check_against_data(dataclasses.replace(CONFIG, train_split=train, eval_split=evaluated), VOC)


def test_a_split_without_labels_is_refused_before_the_first_step():
    with pytest.raises(
        ValueError,
        match=r"The split test of voc2012 has no labels.*devkit_train, devkit_val.*--eval-split none",
    ):
        check_against_data(CONFIG, VOC)


@pytest.mark.parametrize(("option", "value"), [("--train-split", "trian"), ("--eval-split", "tset")])
def test_a_split_that_is_not_there_is_named_with_its_option(option, value):
    config = dataclasses.replace(CONFIG, **{option.strip("-").replace("-", "_"): value})
    with pytest.raises(
        ValueError, match=f"`{option}` must be one of train, devkit_train, .*Received: '{value}'"
    ):
        check_against_data(config, VOC)


BIRDS = Manifest(
    "birds",
    ("crow", "wren"),
    "",
    "",
    {
        "train": Split(
            Path("set"), 400, (300, 7), (0, 2), (0, 40), (Shard("train.tfrecord", 400, 1, ""),), ()
        ),
        "test": Split(Path("set"), 100, (80, 5), (0, 0), (0, 0), (Shard("test.tfrecord", 100, 1, ""),), ()),
    },
)


def test_what_will_be_learnt_is_told():
    assert describe_data(FitConfig(dataset="birds"), BIRDS) == [
        "birds: 2 classes; pictures: train 400, test 100; 0.8 labels a picture",  # 307 / 400
        "rarest in train: wren 7, crow 300",
        "1 of the classes has fewer than 20 pictures to learn from: more pictures help most; --class-weights auto"
        " names rare classes more often, for less mAP (docs/worth.md)",
        "no validation split: the last weights are the result, and no pictures are left to calibrate thresholds on;"
        " --val-fraction 0.1 holds some out",
    ]
    held = describe_data(FitConfig(dataset="birds", val_fraction=0.1, class_weights="auto"), BIRDS)
    assert held[0] == "birds: 2 classes; pictures: train 360, validation 40, test 100; 0.8 labels a picture"
    assert held[2:] == ["validation: the weights of the best epoch are kept beside the last"]


@pytest.mark.parametrize(
    ("difficult", "present", "absent"),
    [
        ("positive", [300, 7], [100, 353]),
        ("ignore", [300, 5], [100, 353]),
        ("negative", [300, 5], [100, 355]),
    ],
)
def test_what_is_unknown_counts_on_neither_side(difficult, present, absent):
    found = count_known(FitConfig(dataset="birds", difficult=difficult), BIRDS.splits["train"])
    assert [counts.tolist() for counts in found] == [present, absent]


@pytest.mark.parametrize(
    ("asked", "classes", "expected"), [(4, 2, 2), (4, 4, 4), (4, 80, 4), (3, 2, 3), (0, 2, 0)]
)
def test_regions_that_nobody_chose_are_no_more_than_the_classes(asked, classes, expected, capsys):
    few = dataclasses.replace(VOC, classes=tuple(f"class {i}" for i in range(classes)))
    config = limit_regions(dataclasses.replace(CONFIG, top_n=asked), few)
    assert config.top_n == expected
    said = (
        "top-n 2, not 4: voc2012 has 2 classes, and each points at one region\n" if expected < asked else ""
    )
    assert capsys.readouterr().out == said


def test_a_recipes_own_number_of_regions_is_no_more_than_the_classes_either(capsys):
    one = dataclasses.replace(VOC, classes=("birds",))
    assert limit_regions(parse_fit_config(["--dataset", "birds"]), one).top_n == 1
    assert capsys.readouterr().out == "top-n 1, not 2: birds has 1 class, and each points at one region\n"
    assert (
        limit_regions(parse_fit_config(["--dataset", "birds", "--top-n", "4"]), one).top_n == 4
    )  # then refused

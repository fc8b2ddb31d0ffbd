import re
from pathlib import Path

import pytest

from pipelines.building.outcome import find_doubts, print_outcome
from pipelines.manifest import Manifest, Shard, Split
from pipelines.samples import Skip


def split(name, examples, present, unknown=None, skipped=(), remarks=None) -> Split:
    return Split(
        *(Path("data/some"), examples, tuple(present), (0,) * len(present)),
        unknown=tuple(unknown or [0] * len(present)),
        shards=(Shard(f"{name}-00000-of-00001.tfrecord", examples, 1, "0" * 64),),
        skipped=tuple(skipped),
        remarks=remarks or {},
    )


def manifest(classes=("cat", "dog", "cow"), **splits) -> Manifest:
    return Manifest("some", tuple(classes), "a test", "", splits)


def test_a_build_ends_with_the_pictures_of_each_class_in_each_split(capsys):
    print_outcome(
        manifest(train=split("train", 9, (5, 4, 3)), test=split("test", 3, (1, 1, 2))), Path("data")
    )
    assert capsys.readouterr().out.splitlines() == [
        "train: 9 pictures in 1 shard, 0 left out",
        "test: 3 pictures in 1 shard, 0 left out",
        "3 classes    train     test",
        "cat              5        1",
        "dog              4        1",
        "cow              3        2",
        "Prepared: data/some",
        "What next:",
        "  python -m mcar_tf.fit --dataset some",
        "      a model of these pictures",
    ]


def test_of_thousands_of_classes_the_first_and_last_are_printed(capsys):
    present = [*range(9000)]
    print_outcome(manifest(map(str, range(9000)), train=split("train", 9999, present)), Path("data"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 30
    assert "9,000 classes    train" in lines
    assert "8999             8,999" in lines
    assert "... 8,980 more ..." in lines


@pytest.mark.parametrize(
    ("found", "doubts"),
    [
        (manifest(train=split("train", 9, (5, 4, 3))), []),
        (manifest(train=split("train", 9, (5, 4, 0))), ["no picture shows the class cow"]),
        (manifest(train=split("train", 9, (5, 0, 0))), [r"no picture shows 2 classes \(dog, cow\)"]),
        (
            manifest(train=split("train", 9, (5, 0, 3)), test=split("test", 2, (1, 1, 0))),
            [
                "no picture of train shows the class dog: can't be learnt",
                "of test shows the class cow: can't be",
            ],
        ),
        (
            manifest(train=split("train", 9, (5, 4, 3)), test=split("test", 2, (0, 0, 0))),
            ["no picture of test shows any class: nothing can be measured"],
        ),
        (
            manifest(train=split("train", 9, (5, 4, 3)), test=split("test", 2, (0, 0, 0), (2, 2, 2))),
            ["nothing is known of any picture of test"],
        ),
        (
            manifest(train=split("train", 9, (9, 4, 6), (0, 0, 3))),
            [r"every picture of train shows 2 classes \(cat, cow\)"],
        ),
        (
            manifest(hard=split("hard", 9, (5, 4, 3))),
            ["there is no split train", "hard is used where it is named"],
        ),
        (manifest(train=split("train", 9, (5, 4, 3)), devkit_val=split("devkit_val", 9, (5, 4, 3))), []),
        (manifest(fold1=split("fold1", 9, (5, 4, 3)), fold2=split("fold2", 9, (5, 4, 3))), []),
        (
            manifest(train=split("train", 9, (5, 4, 3), skipped=[Skip("x", "is GIF")])),
            ["10% of train was left out, the first: is GIF"],
        ),
        (
            manifest(train=split("train", 9, (5, 4, 3), remarks={"are odd": 2})),
            ["2 pictures of train: are odd"],
        ),
    ],
)
def test_what_looks_wrong_is_said(found, doubts, capsys):
    said = find_doubts(found)
    assert len(said) == len(doubts)
    for sentence, doubt in zip(said, doubts, strict=True):
        assert re.search(doubt, sentence)
    print_outcome(found, Path("data"))
    assert capsys.readouterr().out.count("look at this: ") == len(doubts)

"""Batches of a run: what counts where."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from mcar_tf.config import FitConfig
from mcar_tf.training.batches import open_batches
from pipelines.building.sets import build_set
from pipelines.samples import RawSet


@pytest.fixture(scope="module")
def batches(tmp_path_factory, make_sample):
    """Of a set whose every picture shows class 0, in every second one as a difficult object only."""

    def sample(split: str, i: int):
        alone = {"present": (0,), "boxes": (), "box_labels": ()}
        return dataclasses.replace(make_sample(split, i), difficult=(0,) if i % 2 else (), **alone)

    splits = {
        split: lambda split=split: iter([sample(split, i) for i in range(4)])
        for split in ("train", "validation", "test")
    }
    data_dir = tmp_path_factory.mktemp("difficult")
    manifest = build_set(RawSet("difficult", ("red", "green"), splits, source=""), data_dir)
    config = FitConfig(dataset="difficult", data_dir=data_dir, image_size=32, batch_size=2, augment="none")
    return open_batches(config, manifest)


def weights_of(dataset: tf.data.Dataset) -> list[float]:
    """What class 0 counts in each picture, the smallest first."""
    return sorted(np.concatenate([batch["weights"].numpy()[:, 0] for batch in dataset]).tolist())


def test_difficult_objects_count_in_the_loss_and_neither_in_validation_nor_in_the_result(batches):
    assert batches.steps_per_epoch == 2
    assert weights_of(batches.of_epoch(tf.distribute.get_strategy(), 0, 0)) == [1, 1, 1, 1]
    assert weights_of(batches.to_evaluate(batches.validation_files)) == [0, 0, 1, 1]
    assert weights_of(batches.to_evaluate(batches.test.files)) == [0, 0, 1, 1]


def test_a_resumed_epoch_lacks_the_steps_that_were_done(batches):
    assert len(weights_of(batches.of_epoch(tf.distribute.get_strategy(), 0, 1))) == 2

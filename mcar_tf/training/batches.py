"""Makes batches of pictures from a run's splits: for each epoch, for validation and for the final result."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tensorflow as tf

from mcar_tf.config import FitConfig
from mcar_tf.option_rules import NO_SPLIT
from mcar_tf.runs.splits import VALIDATION, find_split, split_names
from mcar_tf.training.waiting import WaitClock
from pipelines.cache import cache_resized
from pipelines.input_pipeline import make_eval_dataset, make_train_dataset
from pipelines.manifest import Manifest, Part, Portion, Split

Difficult = Literal["positive", "ignore", "negative"]
PANEL = 8  # pictures whose regions TensorBoard shows after each epoch


@dataclasses.dataclass(frozen=True)
class Batches:
    """The pictures of a run.

    Attributes:
        config: the run's options.
        num_classes: C.
        clock: measures how long training waits for pictures; it runs only where there is one device.
        train: the split that is trained on.
        test: the split whose metrics are the result, if there is one.
        train_files, validation_files: files to read; `validation_files` is empty if the run has no validation split.
        validation_examples: number of pictures in them.
    """

    config: FitConfig
    num_classes: int
    clock: WaitClock
    train: Split | Portion
    test: Split | Portion | None
    train_files: Sequence[Path | Part]
    validation_files: Sequence[Path | Part]
    validation_examples: int

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in the training split."""
        return self.train.examples // self.config.batch_size

    def of_epoch(self, strategy: tf.distribute.Strategy, epoch: int, steps_done: int) -> tf.data.Dataset:
        """The rest of an epoch, after `steps_done` steps. Each batch makes one step on all devices together."""
        share = functools.partial(self._share, epoch, steps_done)
        return strategy.distribute_datasets_from_function(share)

    def to_evaluate(self, files: Sequence[Path | Part]) -> tf.data.Dataset:
        """The validation or test split in batches. Difficult objects do not count in its mAP."""
        return self._whole(files, self.config.batch_size, "ignore")

    def first_pictures(self) -> tf.Tensor:
        """The first pictures of the validation split, or of the training split: (B, S, S, 3) in [0, 255]."""
        return next(iter(self._whole(self.validation_files or self.train_files, PANEL)))["image"]

    def _share(self, epoch: int, steps_done: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """This worker's share of the rest of an epoch, in batches for one replica."""
        workers = context.num_input_pipelines
        dataset = make_train_dataset(
            self.train_files,
            num_classes=self.num_classes,
            image_size=self.config.image_size,
            batch_size=context.get_per_replica_batch_size(self.config.batch_size),
            seed=self.config.seed,
            epoch=epoch,
            skip_batches=steps_done * (context.num_replicas_in_sync // workers),
            augment=self.config.augment,
            difficult=self.config.difficult,
            shuffle_megabytes=self.config.shuffle_megabytes,
            shard=(context.input_pipeline_id, workers),
        ).map(_without_id)
        # With several devices a thread for each fetches batches ahead, and training itself does not ask.
        return self.clock.watch(dataset) if context.num_replicas_in_sync == 1 else dataset

    def _whole(
        self, files: Sequence[Path | Part], batch_size: int, difficult: Difficult = "positive"
    ) -> tf.data.Dataset:
        """All pictures of a split. Every worker evaluates all of them, so all get the same result."""
        dataset = make_eval_dataset(
            files,
            num_classes=self.num_classes,
            image_size=self.config.image_size,
            batch_size=batch_size,
            difficult=difficult,
        )
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return dataset.with_options(options)


def open_batches(config: FitConfig, manifest: Manifest) -> Batches:
    """Find a run's splits. With `cache_dir`, cache the pictures that are read in every epoch at their final size."""
    train = find_split(config, manifest, config.train_split)
    validates = VALIDATION in split_names(config, manifest)
    train_files: Sequence[Path | Part] = train.files
    validation = find_split(config, manifest, VALIDATION) if validates else None
    validation_files: Sequence[Path | Part] = validation.files if validation else []
    if config.cache_dir:
        train_files = cache_resized(train_files, config.image_size, config.cache_dir)
        validation_files = cache_resized(validation_files, config.image_size, config.cache_dir)
    return Batches(
        config=config,
        num_classes=len(manifest.classes),
        clock=WaitClock(),
        train=train,
        test=None if config.eval_split == NO_SPLIT else find_split(config, manifest, config.eval_split),
        train_files=train_files,
        validation_files=validation_files,
        validation_examples=validation.examples if validation else 0,
    )


def _without_id(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: value for name, value in batch.items() if name != "id"}

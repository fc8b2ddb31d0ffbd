"""A run's config and its prepared set in, the pictures of a split out, held-out ones too. Loads no TensorFlow."""

from mcar_tf.config import FitConfig
from pipelines.manifest import Manifest, Portion, Split, hold_out
from pipelines.words import spell

VALIDATION = "validation"
NO_SPLIT = "none"  # `--eval-split none`: nothing is measured at the end
# VOC's own lists, which its `train` is made of.
PARTS = {"train": ("devkit_train", "devkit_val")}


def split_names(config: FitConfig, manifest: Manifest) -> list[str]:
    """The splits that a run has: those of the set, and `validation` where the run holds one out."""
    held_out = [VALIDATION] if holds_out(config, manifest) else []
    return [*manifest.splits, *held_out]


def find_split(config: FitConfig, manifest: Manifest, name: str, option: str = "split") -> Split | Portion:
    """A split as the run saw it: where it held out a validation split, its training split is the rest.

    Args:
        config: of the run.
        manifest: of the prepared set.
        name: of the split.
        option: that the name came by.

    Raises:
        ValueError: the run has no split of that name.
    """
    names = split_names(config, manifest)
    if name not in names:
        raise ValueError(
            f"`--{spell(option)}` must be one of {', '.join(names)}, the splits of {manifest.name}."
            f" Received: {name!r}"
        )
    if holds_out(config, manifest) and name in (config.train_split, VALIDATION):
        rest, held = hold_out(manifest.splits[config.train_split], config.val_fraction, config.seed)
        return held if name == VALIDATION else rest
    return manifest.splits[name]


def holds_out(config: FitConfig, manifest: Manifest) -> bool:
    """Whether the run takes its validation split out of the training split: only where the set has none."""
    return config.val_fraction > 0 and VALIDATION not in manifest.splits


def overlap(one: str, other: str) -> bool:
    """Whether two splits of a set have pictures in common: they are one, or one is a part of the other."""
    return one == other or other in PARTS.get(one, ()) or one in PARTS.get(other, ())


def has_labels(split: Split | Portion) -> bool:
    """Whether anybody knows what is in the split's pictures: VOC 2012's test has no labels."""
    # What a run holds out for validation is of a split that it trains on.
    return isinstance(split, Portion) or any(unknown < split.examples for unknown in split.unknown)

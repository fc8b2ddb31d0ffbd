"""The options of a run that other commands than `fit` may change: no weights depend on them. Loads no TensorFlow."""

import dataclasses
from typing import Any, Literal

from pipelines.command import option

UNTRAINED = "model, without retraining"


@dataclasses.dataclass(kw_only=True)
class ModelOptions:
    """Which weights of a run to use, and the options that can change without training: no weights depend on them."""

    # fmt: off
    checkpoint: Literal["last", "best"] = option("last", "Weights to use. last: the run's result; best: those that"
                                                 " were best on its validation split.", group=UNTRAINED)
    image_size: int | None = option(None, "Side of the images in px (default: the run's).", group=UNTRAINED)
    glance_size: int | None = option(None, "Side in px to which the images are reduced for the first look (default:"
                                     " the run's).", group=UNTRAINED)
    local_size: int | None = option(None, "Side of the regions' crops in px (default: the run's).", group=UNTRAINED)
    top_n: int | None = option(None, "Regions looked at per image (default: the run's).", group=UNTRAINED)
    tau: float | None = option(None, "Threshold in [0, 1) that a map must reach inside a region (default: the"
                               " run's).", group=UNTRAINED)
    fusion: Literal["max", "mean"] | None = option(None, "How the streams are fused. max: the larger of their"
                                                   " probabilities; mean: the sigmoid of the mean of their"
                                                   " logits (default: the run's).", group=UNTRAINED)
    look_band: list[float] | None = option(None, "Two probabilities: look again only at classes whose global"
                                           " probability lies between them, at most top-n (default: the run's).",
                                           group=UNTRAINED)
    look_doubt: float | None = option(None, "Look again only at pictures that the first look leaves in doubt: the"
                                      " entropy of its probabilities, summed over the classes, is at least so many"
                                      " bits (default: the run's).", group=UNTRAINED)
    # fmt: on

    @property
    def changes(self) -> dict[str, Any]:
        """What `change_without_training` and `load_run` take."""
        return {name: getattr(self, name) for name in WITHOUT_TRAINING}


WITHOUT_TRAINING = tuple(f.name for f in dataclasses.fields(ModelOptions) if f.name != "checkpoint")

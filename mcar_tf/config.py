"""What a run is: every option of `python -m mcar_tf.fit`, its unit, its default and what it may be.

The defaults are the paper's recipe (section IV-A1). Loads no TensorFlow.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from mcar_tf.models.backbone_table import BACKBONES, check_backbone
from pipelines.command import option, options_from, parse_options
from pipelines.reading import read_yaml
from pipelines.words import spell

DATA, MODEL, START, RECIPE, RUN = "data", "model", "first weights", "recipe", "run"

# What the recipe of a set differs in from the paper's. `digits` is learnt from scratch in minutes on two CPU cores:
# hence a small network, Adam, few epochs, small images. A mirrored digit is none, and the scenes have every colour
# already: no augmentation.
PRESETS: dict[str, dict[str, Any]] = {
    "digits": {
        "augment": "none",
        "backbone": "tiny_resnet",
        "weights": "none",
        "image_size": 64,
        "epochs": 6,
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "weight_decay": 0.01,
        "warmup_epochs": 0.5,
    },
}

LEARNINGS = ("pair", "single")
LOSSES = ("bce", "asymmetric")

MOST = 2**16  # of what is counted or measured in pixels: beyond, a typing error, which would fill the memory


def on_command_line(name: str) -> str:
    """An option as users type it: `image_size` -> `--image-size`."""
    return f"--{spell(name)}"


def _count(least: int) -> tuple[str, Callable[[Any], bool]]:
    return f"in [{least}, {MOST}]", lambda value: least <= value <= MOST


_POSITIVE = "positive", lambda value: 0 < value < math.inf
_NOT_NEGATIVE = "0 or more", lambda value: 0 <= value < math.inf
_BELOW_1 = "in [0, 1)", lambda value: 0 <= value < 1
# Option -> what it may be, in words and as a question.
RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("epochs", "batch_size", "keep_checkpoints", "accumulate_steps", "shuffle_megabytes"), _count(1)
    ),
    **dict.fromkeys(("image_size", "glance_size", "local_size"), _count(1)),
    **dict.fromkeys(("top_n", "freeze_backbone_epochs", "early_stopping_epochs"), _count(0)),
    **dict.fromkeys(("learning_rate", "head_learning_rate", "head_rate_factor", "drop_factor"), _POSITIVE),
    **dict.fromkeys(("checkpoint_minutes", "csra_temperature", "box_spread"), _POSITIVE),
    **dict.fromkeys(("weight_decay", "warmup_epochs", "clip_norm"), _NOT_NEGATIVE),
    **dict.fromkeys(("csra_lambda", "min_box_cells", "gamma_positive", "gamma_negative"), _NOT_NEGATIVE),
    **dict.fromkeys(("momentum", "ema_decay", "tau", "val_fraction", "margin"), _BELOW_1),
    **dict.fromkeys(("gwp_lambda", "distill", "own_region"), ("in [0, 1]", lambda value: 0 <= value <= 1)),
    "box_jitter": ("in [0, 0.5]", lambda value: 0 <= value <= 0.5),
    "seed": (f"in [0, {2**32 - 1}]", lambda value: 0 <= value < 2**32),
    "drop_epochs": (
        "positive and ascending",
        lambda value: all(epoch > 0 for epoch in value) and sorted(value) == value,
    ),
    "loss": (f"one of {', '.join(LOSSES)}", LOSSES.__contains__),
}

# Options that act only where another has this value.
ONLY_WITH = {
    ("optimizer", "sgd"): ("head_learning_rate", "momentum"),
    ("optimizer", "adamw"): ("head_rate_factor",),
    ("rate_schedule", "step"): ("drop_epochs", "drop_factor"),
    ("rate_schedule", "cosine"): ("warmup_epochs",),
    ("pooling", "gwp"): ("gwp_lambda",),
    ("pooling", "csra"): ("csra_temperature", "csra_lambda"),
    ("localizer", "threshold"): ("tau",),
    ("localizer", "moments"): ("box_spread",),
    ("loss", "asymmetric"): ("gamma_positive", "gamma_negative", "margin"),
    ("learning", "pair"): ("distill", "own_region"),
}
# Options that act only where regions are looked at.
ONLY_WITH_REGIONS = (
    *("glance_size", "localizer", "box_spread", "min_box_cells", "box_jitter"),
    *("fusion", "distill", "own_region"),
)

# What `evaluate` and `export` can change: no weights depend on it.
WITHOUT_TRAINING = ("image_size", "glance_size", "local_size", "top_n", "tau", "fusion")


@dataclasses.dataclass
class FitConfig:
    """One run of `fit`. `check` says what each value may be."""

    # fmt: off
    dataset: str = option("digits", "Name of the prepared set: digits, coco, coco2017, voc2007, voc2012, or one of"
                          " your own built by pipelines.build.", group=DATA)
    source: Path | None = option(None, "Folder of the set's original files, to build it from where it is not yet"
                                 " prepared; digits needs none.", group=DATA, changes_result=False)
    data_dir: Path = option(Path("data"), "Where prepared sets lie.", group=DATA, changes_result=False)
    train_split: str = option("train", "Split to train on.", group=DATA)
    eval_split: str = option("test", "Split whose metrics are the run's result; none: nothing is measured.",
                             group=DATA)
    val_fraction: float = option(0.0, "Share of the training split, drawn by seed, that is held out for validation"
                                 " where the set has no validation split of its own.", group=DATA)
    difficult: Literal["positive", "ignore", "negative"] = option(
        "positive", "What classes seen only as difficult objects (VOC) are in the loss.", group=DATA)
    augment: Literal["none", "flip", "color", "paper", "cutout", "gridmask", "randaugment",
                     "randaugment_cutout"] = option(
        "paper", "paper: horizontal flip and colour jitter; flip, color: one of the two; cutout, gridmask: both, and"
        " grey painted over; randaugment: flip and two operations of Keras'; randaugment_cutout: that, and grey"
        " painted over.", group=DATA)
    cache_dir: Path | None = option(None, "Folder on a fast disk for the pictures in their final size, 3 bytes a"
                                    " pixel: made once, then read instead of decoding.", group=DATA)
    shuffle_megabytes: int = option(512, "How many MB of records, compressed as their pictures are, the buffer"
                                    " holds that mixes their order; 2,048 records at most.", group=DATA)

    backbone: str = option("mobilenet_v2", f"One of {', '.join(BACKBONES)}.", group=MODEL)
    backbone_width: float = option(1.0, "Factor on the channels of "
                                   + " or ".join(name for name, entry in BACKBONES.items() if entry.widths) + ".",
                                   group=MODEL)
    weights: str = option("imagenet", "The backbone's first weights: imagenet (downloaded, or from an installed"
                          " package), none, or the path of a file: docs/weights.md says which.", group=START)
    init_from: Path | None = option(None, "Run folder whose weights the model starts from: the backbone's, and"
                                    " those of the classes that both know by name, in whatever order.", group=START)
    image_size: int = option(256, "Side of the images in px.", group=MODEL)
    glance_size: int | None = option(None, "Side in px, a divisor of image-size, to which the first look reduces the"
                                     " images; regions are cut from the whole ones (null: image-size).", group=MODEL)
    local_size: int | None = option(None, "Side of the regions' crops in px (null: glance-size).", group=MODEL)
    pooling: Literal["gap", "gmp", "gwp", "csra"] = option(
        "gwp", "Global pooling (13-15), or csra: class-specific residual attention.", group=MODEL)
    gwp_lambda: float = option(0.5, "Weight of the average in gwp, in [0, 1].", group=MODEL)
    csra_temperature: float = option(1.0, "Sharpness of csra's attention; the maximum from about 99 on.",
                                     group=MODEL)
    csra_lambda: float = option(0.1, "Weight of csra's attention, beside the average.", group=MODEL)
    top_n: int = option(4, "Regions an image; 0 is the plain backbone.", group=MODEL)
    tau: float = option(0.5, "Localization threshold in [0, 1).", group=MODEL)
    localizer: Literal["threshold", "moments"] = option(
        "threshold", "threshold: the paper's interval, where a map's marginal reaches tau; moments: about its mean.",
        group=MODEL)
    box_spread: float = option(1.8, "Half a side of a box of moments, in standard deviations.", group=MODEL)
    min_box_cells: float = option(0.0, "Least side of a box, in cells of the activation map.", group=MODEL)
    fusion: Literal["max", "mean"] = option(
        "max", "max: of both streams' probabilities; mean: the sigmoid of the mean of their logits.", group=MODEL)
    batch_norm: Literal["shared", "per_stream", "frozen"] = option(
        "shared", "Moving statistics of BatchNorm: one set for both streams, one for each, or the first ones for"
        " good.", group=MODEL)

    epochs: int = option(60, "Passes over the training split.", group=RECIPE)
    batch_size: int = option(16, "Images a step, over all devices together.", group=RECIPE)
    optimizer: Literal["sgd", "adamw"] = option(
        "sgd", "sgd: the paper's; adamw: decoupled decay.", group=RECIPE)
    learning_rate: float = option(0.001, "Of the backbone.", group=RECIPE)
    head_learning_rate: float = option(0.01, "Of the 1x1 convolution (sgd only).", group=RECIPE)
    head_rate_factor: float = option(1.0, "The rate of the 1x1 convolution is so many times learning-rate (adamw"
                                     " only).", group=RECIPE)
    momentum: float = option(0.9, "Of sgd.", group=RECIPE)
    weight_decay: float = option(1e-4, "Of all trained weights.", group=RECIPE)
    decay_kernels_only: bool = option(False, "No decay of biases and of BatchNorm's weights.", group=RECIPE)
    schedule: Literal["step", "cosine", "one_cycle"] | None = option(
        None, "Of the rates. step: drops; cosine: a warm-up, then down to 0; one_cycle: up for three tenths of the"
        " run, then down to 0 (null: step with sgd, cosine with adamw).", group=RECIPE)
    drop_epochs: list[int] = option([30, 50], "Epochs (from 0) at whose start the rates drop (step only).",
                                    group=RECIPE)
    drop_factor: float = option(0.1, "Factor of each drop.", group=RECIPE)
    warmup_epochs: float = option(1.0, "Epochs of linear warm-up (cosine only).", group=RECIPE)
    learning: Literal["pair", "single"] = option(
        "pair", "pair: each stream has a loss of its own (8); single: one loss, of the fused probabilities (12).",
        group=RECIPE)
    loss: str = option("bce", f"One of {', '.join(LOSSES)}; bce: binary cross-entropy of each class (9);"
                       " asymmetric: in which what is easy counts less.", group=RECIPE)
    gamma_positive: float = option(0.0, "Focus of the asymmetric loss on positives that are hard.", group=RECIPE)
    gamma_negative: float = option(4.0, "Focus of the asymmetric loss on negatives that are hard.", group=RECIPE)
    margin: float = option(0.05, "Negatives below this probability cost nothing in the asymmetric loss.",
                           group=RECIPE)
    box_jitter: float = option(0.0, "In training, boxes are shifted and scaled at random by up to this share of"
                               " their sides.", group=RECIPE)
    distill: float = option(0.0, "Share of the global stream's loss that is its cross-entropy with the fused"
                            " probabilities in place of the labels.", group=RECIPE)
    own_region: float = option(0.0, "Share of the local stream's loss in which a class that pointed at a region is"
                               " judged by that region alone.", group=RECIPE)
    clip_norm: float = option(0.0, "Largest norm of the gradient of all weights together; 0: any.", group=RECIPE)
    accumulate_steps: int = option(1, "Steps whose mean gradient makes one update of the weights: a batch so many"
                                   " times as large, but for BatchNorm.", group=RECIPE)
    freeze_backbone_epochs: int = option(0, "First epochs, in which the 1x1 convolution alone is trained.",
                                         group=RECIPE)
    ema_decay: float = option(0.0, "Evaluate and keep a moving average of the weights, which keeps this share of"
                              " itself each step, such as 0.999; 0: the weights themselves.", group=RECIPE)
    early_stopping_epochs: int = option(0, "Stop after so many epochs without a better mAP on the validation split;"
                                        " 0: never.", group=RECIPE)

    out_dir: Path | None = option(None, "The run folder (null: runs/<dataset>-<backbone>).", group=RUN,
                                  recorded=False)
    seed: int = option(0, "Decides first weights, order and augmentation.", group=RUN)
    resume: bool = option(False, "Go on with the run in the run folder; start it if there is none.", group=RUN,
                          recorded=False)
    overwrite: bool = option(False, "Delete the run in the run folder and start anew.", group=RUN, recorded=False)
    compare_baseline: bool = option(False, "Afterwards train the plain backbone (top-n 0) by the same recipe, into"
                                    " <run folder>/baseline, and print both.", group=RUN, recorded=False)
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = option(
        "float32", "What the backbone computes in.", group=RUN)
    low_memory: bool = option(False, "Keep fewer activations: one stream after the other, and computed again in the"
                              " backward pass. The same gradients, about a third more time.", group=RUN)
    xla: bool = option(False, "Compile the training step with XLA.", group=RUN)
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker"] = option(
        "auto", "auto: mirrored over all GPUs where there are several; multi_worker: over several machines, by"
        " TF_CONFIG.", group=RUN)
    sync_batch_norm: bool = option(False, "BatchNorm normalizes with the batch of all devices, not with each one's"
                                   " own.", group=RUN)
    deterministic: bool = option(False, "Deterministic ops on a GPU too, at some cost in speed.", group=RUN)
    checkpoint_minutes: float = option(10.0, "Minutes between checkpoints inside an epoch; there is one at the end of"
                                       " each epoch anyway.", group=RUN, changes_result=False)
    keep_checkpoints: int = option(2, "How many checkpoints to keep.", group=RUN, changes_result=False)
    # fmt: on

    def check(self) -> None:
        """Refuse what no run can be made of, before anything slow happens.

        Raises:
            ValueError: naming the option, what it may be and what it is.
            FileNotFoundError: no such file of weights.
        """
        self.check_values()
        check_backbone(
            self.backbone,
            backbone_width=self.backbone_width,
            weights=None if self.init_from or self.goes_on else self.backbone_weights,
            spell=on_command_line,
        )
        if self.freeze_backbone_epochs and self.backbone_weights is None and self.init_from is None:
            raise ValueError(
                "--freeze-backbone-epochs would keep random weights: give --weights or --init-from."
            )
        if self.deterministic and self.augment == "gridmask":
            raise ValueError(
                "--augment gridmask draws random numbers of its own: it can't be --deterministic."
            )
        if self.compare_baseline and self.top_n == 0:
            raise ValueError(
                "--compare-baseline does nothing with --top-n 0, the baseline itself. Leave one out."
            )
        for (decider, value), names in ONLY_WITH.items():
            if getattr(self, decider) != value:
                self._refuse_given(names, self._as_given(decider))
        if self.top_n == 0:
            self._refuse_given(ONLY_WITH_REGIONS, "--top-n 0")
            if self.batch_norm == "per_stream":
                raise ValueError(
                    "--batch-norm per_stream does nothing with --top-n 0, which has one stream. Leave it out."
                )
        if self.sync_batch_norm and self.batch_norm == "frozen":
            raise ValueError("--sync-batch-norm does nothing with --batch-norm frozen. Leave one out.")
        if self.init_from and self._is_given("weights"):
            raise ValueError(
                "--weights does nothing with --init-from, which has weights of its own. Leave one out."
            )
        if self.resume and self.overwrite:
            raise ValueError("--resume and --overwrite exclude each other. Give one of them.")

    def check_values(self, named: Callable[[str], str] = on_command_line) -> None:
        """Refuse a value out of its range.

        Args:
            named: how to write an option's name: as on the command line, or as in a file.

        Raises:
            ValueError: naming the option, what it may be and what it is.
        """
        for name, (allowed, may_be) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not may_be(value):
                raise ValueError(f"`{named(name)}` must be {allowed}. Received: {value}")
        if self.freeze_backbone_epochs > self.epochs:
            raise ValueError(
                f"`{named('freeze_backbone_epochs')}` must be in [0, {self.epochs}], the epochs."
                f" Received: {self.freeze_backbone_epochs}"
            )
        check_backbone(
            self.backbone,
            backbone_width=self.backbone_width,
            image_size=self.image_size,
            glance_size=self.glance_size,
            local_size=self.local_size,
            spell=named,
        )

    def plain_backbone(self) -> "FitConfig":
        """The run by the same recipe that looks at no regions, nor does anything else that needs them."""
        needless = {name: getattr(FitConfig(), name) for name in ONLY_WITH_REGIONS}
        batch_norm = "shared" if self.batch_norm == "per_stream" else self.batch_norm
        return dataclasses.replace(self, top_n=0, batch_norm=batch_norm, **needless)

    @property
    def rate_schedule(self) -> str:
        """`schedule`, or the optimizer's own."""
        return self.schedule or {"sgd": "step", "adamw": "cosine"}[self.optimizer]

    @property
    def goes_on(self) -> bool:
        """Whether a checkpoint will be gone on with, which makes first weights needless."""
        return self.resume and any((self.run_dir / "checkpoints").glob("epoch-*"))

    def _refuse_given(self, names: Sequence[str], other: str) -> None:
        given = [name for name in names if self._is_given(name)]
        if given:
            raise ValueError(f"--{spell(given[0])} does nothing with {other}. Leave it out.")

    def _as_given(self, decider: str) -> str:
        """An option that decides about others, as whoever gave it typed it."""
        if decider == "rate_schedule":
            decider = "schedule" if self.schedule else "optimizer"
        return f"--{spell(decider)} {getattr(self, decider)}"

    def _is_given(self, name: str) -> bool:
        """Whether someone chose the value: it is neither the default nor that of any set's preset."""
        presets = [preset[name] for preset in PRESETS.values() if name in preset]
        return getattr(self, name) not in [getattr(FitConfig(), name), *presets]

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        return self.out_dir or Path("runs") / f"{self.dataset}-{self.backbone}"

    @property
    def backbone_weights(self) -> str | None:
        """`weights` as `build_mcar` takes it."""
        return None if self.weights == "none" else self.weights


_FIELDS = dataclasses.fields(FitConfig)
# What `config.yaml` leaves out: where the run lies and how it was started, so that the file repeats the run anywhere.
NOT_RECORDED = tuple(field.name for field in _FIELDS if not field.metadata.get("recorded", True))
# What decides nothing of what is computed, so it may differ when a run is resumed.
MAY_CHANGE = tuple(field.name for field in _FIELDS if not field.metadata.get("changes_result", True))


def parse_fit_config(argv: Sequence[str] | None = None) -> FitConfig:
    """The command line over `--config FILE` over the set's preset over the defaults, checked."""
    config = parse_options(
        FitConfig,
        argv,
        module="mcar_tf.fit",
        description="Train MCAR on a multi-label image set. Without arguments: on digits, which needs no download."
        " The defaults below are the paper's recipe; for digits, where not given otherwise: "
        + ", ".join(f"{spell(name)} {value}" for name, value in PRESETS["digits"].items())
        + ".",
        presets=("dataset", PRESETS),
    )
    values, said = _renamed(vars(config))
    if said:
        print(said, file=sys.stderr)
    config = FitConfig(**values)
    config.check()
    return config


def config_to_yaml(config: FitConfig) -> str:
    """All options of a run as YAML, for `config.yaml`."""
    import yaml

    values = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(config).items()
        if name not in NOT_RECORDED
    }
    return yaml.safe_dump(values, sort_keys=False)


def read_config(path: Path) -> FitConfig:
    """Read what `config_to_yaml` gave; an option that came later is at its default, as it was then.

    Raises:
        ValueError: the file holds an option that this version does not know.
    """
    values = read_yaml(path)
    names = {field.name for field in _FIELDS} - set(NOT_RECORDED)
    if not isinstance(values, dict) or not set(values) <= names:
        unknown = sorted(map(str, set(values) - names)) if isinstance(values, dict) else ["no options"]
        raise ValueError(
            f"{path} was written by another version of mcar_tf, which holds {', '.join(unknown)}."
        )
    values, _ = _renamed(values)
    config = options_from(FitConfig, values, str(path))
    try:
        config.check_values(named=str)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return config


def _renamed(values: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Options under the names that they have now, and what to say about it: `loss` was what `learning` is."""
    old = values.get("loss")
    if old not in LEARNINGS:
        return values, ""
    said = f"`--loss {old}` is now `--learning {old}`; `--loss` is one of {', '.join(LOSSES)}."
    return values | {"loss": "bce", "learning": old}, said

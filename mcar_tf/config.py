"""The config of a run: every option of `python -m mcar_tf.fit` with its unit, default and allowed values.

The defaults are the paper's recipe (section IV-A1); `mcar_tf.training.recipes` has others. Loads no TensorFlow.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mcar_tf.models.backbone_table import BACKBONES, check_backbone
from mcar_tf.models.band import check_looks
from mcar_tf.option_rules import (
    LEARNINGS,
    LOSSES,
    ONLY_WITH_REGIONS,
    check_changes,
    check_ranges,
    check_together,
    on_command_line,
)
from mcar_tf.training.recipes import RECIPES, own_recipe, recipe_defaults
from pipelines.command import option, options_from, parse_options
from pipelines.reading import read_yaml
from pipelines.samples import fold_name

DATA, MODEL, START, RECIPE, RUN = "data", "model", "first weights", "recipe", "run"


@dataclasses.dataclass
class FitConfig:
    """The options of one run of `fit`. `check` checks their values."""

    # fmt: off
    dataset: str = option("digits", "Name of the prepared set: digits, coco, coco2017, voc2007, voc2012, or one of"
                          " your own built by pipelines.build.", group=DATA)
    source: Path | None = option(None, "Folder of the set's original files, from which it is built if it is not"
                                 " prepared yet; digits needs none.", group=DATA, changes_result=False)
    data_dir: Path = option(Path("data"), "Folder of the prepared sets.", group=DATA, changes_result=False)
    train_split: str = option("train", "Split to train on.", group=DATA)
    eval_split: str = option(None, "Split whose metrics are the run's result; none: measure nothing (default: test;"
                             " with --fold, that fold).", group=DATA)
    fold: int | None = option(None, "Of a set built with --folds: number of the one that is evaluated on; the others"
                              " are trained on.", group=DATA)
    val_fraction: float = option(0.0, "Share of the training split, drawn by seed, that is held out for validation"
                                 " if the set has no validation split of its own.", group=DATA)
    difficult: Literal["positive", "ignore", "negative"] = option(
        "positive", "How the loss counts a class that a picture shows only as objects marked difficult (VOC).",
        group=DATA)
    augment: Literal["none", "flip", "color", "paper", "crop", "crop_cutout", "cutout", "gridmask", "randaugment",
                     "randaugment_cutout"] = option(
        "paper", "How training pictures are varied. paper: horizontal flip and colour jitter; flip, color: one of"
        " the two; crop: a random part of the picture, then both; cutout, gridmask: both, and a grey rectangle or a"
        " grid of grey squares painted over; crop_cutout: crop, and the rectangle; randaugment: flip and two random"
        " operations of Keras'; randaugment_cutout: those, and a grey rectangle.", group=DATA)
    cache_dir: Path | None = option(None, "Folder on a fast disk that keeps the decoded pictures in their final size,"
                                    " 3 bytes a pixel; later epochs and runs read them from there.", group=DATA)
    shuffle_megabytes: int = option(512, "Size in MB of the buffer that shuffles the records, whose pictures stay"
                                    " compressed in it; it holds 2,048 records at most.", group=DATA)

    backbone: str = option("mobilenet_v2", f"The network: one of {', '.join(BACKBONES)}.", group=MODEL)
    backbone_width: float = option(1.0, "Factor by which the number of channels is multiplied, for "
                                   + " or ".join(name for name, entry in BACKBONES.items() if entry.widths) + ".",
                                   group=MODEL)
    weights: str = option("imagenet", "The backbone's first weights: imagenet (downloaded, or from an installed"
                          " package), none (random), or the path of a file of a kind named in docs/weights.md.",
                          group=START)
    init_from: Path | None = option(None, "Run folder whose weights the model starts from: the backbone's, and those"
                                    " of all classes that have the same name in both, in any order.", group=START)
    image_size: int = option(256, "Side of the images in px.", group=MODEL)
    glance_size: int | None = option(None, "Side in px, a divisor of image-size, to which the images are reduced for"
                                     " the first look; regions are cut from the full-size images (default:"
                                     " image-size).", group=MODEL)
    local_size: int | None = option(None, "Side of the regions' crops in px (default: glance-size).", group=MODEL)
    pooling: Literal["gap", "gmp", "gwp", "csra"] = option(
        "gwp", "How a map becomes one number. gap, gmp, gwp: the paper's global pooling (13-15), by average,"
        " maximum, or a weighted mean of the two; csra: class-specific residual attention.", group=MODEL)
    gwp_lambda: float = option(0.5, "Weight of the average in gwp pooling, in [0, 1].", group=MODEL)
    csra_temperature: float = option(1.0, "Sharpness of the attention in csra pooling; from about 99 on it is the"
                                     " maximum.",
                                     group=MODEL)
    csra_lambda: float = option(0.1, "Weight of the attention in csra pooling; the average has weight 1.",
                                group=MODEL)
    top_n: int = option(4, "Regions looked at per image; 0 is the plain backbone.", group=MODEL)
    tau: float = option(0.5, "Threshold in [0, 1) that a class activation map must reach inside a region.",
                        group=MODEL)
    localizer: Literal["threshold", "moments"] = option(
        "threshold", "How a region's box is found. threshold: the paper's way, the interval in which the map's"
        " marginal reaches tau; moments: the marginal's mean, plus and minus box-spread standard deviations.",
        group=MODEL)
    box_spread: float = option(1.8, "Half the side of a box that localizer moments finds, in standard deviations.",
                               group=MODEL)
    min_box_cells: float = option(0.0, "Smallest side of a box, in cells of the activation map.", group=MODEL)
    fusion: Literal["max", "mean"] = option(
        "max", "How the two streams become one answer. max: the larger of their probabilities; mean: the sigmoid"
        " of the mean of their logits.", group=MODEL)
    look_band: list[float] | None = option(
        None, "Two probabilities: once trained, the model looks again only at classes whose global probability lies"
        " between them, at most top-n (default: at top-n).", group=MODEL)
    look_doubt: float = option(
        0.0, "Once trained, the model looks again only at pictures that the first look leaves in doubt: the entropy"
        " of its probabilities, summed over the classes, is at least so many bits.", group=MODEL)
    batch_norm: Literal["shared", "per_stream", "frozen"] = option(
        "shared", "Moving statistics of BatchNorm. shared: one set for both streams; per_stream: one set for each;"
        " frozen: those of the first weights, never changed.", group=MODEL)

    recipe: str | None = option(None, f"One of {', '.join(RECIPES)}; paper: as published; modern: what measured best"
                                " on photographs since (default: paper for digits, COCO and VOC, modern for sets of"
                                " your own).", group=RECIPE, changes_result=False)
    epochs: int = option(60, "Passes over the training split.", group=RECIPE)
    batch_size: int = option(16, "Images per step, on all devices together.", group=RECIPE)
    optimizer: Literal["sgd", "adamw"] = option(
        "sgd", "sgd: the paper's; adamw: Adam with decoupled weight decay.", group=RECIPE)
    learning_rate: float = option(0.001, "Learning rate of the backbone.", group=RECIPE)
    head_learning_rate: float = option(0.01, "Learning rate of the 1x1 convolution (sgd only).", group=RECIPE)
    head_rate_factor: float = option(1.0, "Learning rate of the 1x1 convolution as a multiple of learning-rate"
                                     " (adamw only).", group=RECIPE)
    momentum: float = option(0.9, "Momentum of sgd.", group=RECIPE)
    weight_decay: float = option(1e-4, "Weight decay of all trained weights.", group=RECIPE)
    decay_kernels_only: bool = option(False, "Leave biases and BatchNorm's weights out of the weight decay.",
                                      group=RECIPE)
    schedule: Literal["step", "cosine", "one_cycle"] | None = option(
        None, "How the learning rates change. step: they drop at drop-epochs; cosine: a warm-up, then down to 0;"
        " one_cycle: up for three tenths of the run, then down to 0 (default: step with sgd, cosine with adamw).",
        group=RECIPE)
    drop_epochs: list[int] = option([30, 50], "Epochs, counted from 0, at whose start the rates drop (step only).",
                                    group=RECIPE)
    drop_factor: float = option(0.1, "Factor by which the rates are multiplied at each drop (step only).",
                                group=RECIPE)
    warmup_epochs: float = option(1.0, "Epochs in which the rates rise linearly from 0 (cosine only).", group=RECIPE)
    learning: Literal["pair", "single"] = option(
        "pair", "pair: each stream has its own loss (8); single: one loss, on the fused probabilities (12).",
        group=RECIPE)
    loss: str = option("bce", f"The loss: one of {', '.join(LOSSES)}. bce: binary cross-entropy of each class"
                       " (9); asymmetric: the same, but what is easy counts less.", group=RECIPE)
    gamma_positive: float = option(0.0, "How strongly the asymmetric loss favours hard positives; 0: all alike.",
                                   group=RECIPE)
    gamma_negative: float = option(4.0, "How strongly the asymmetric loss favours hard negatives; 0: all alike.",
                                   group=RECIPE)
    margin: float = option(0.05, "In the asymmetric loss, a negative below this probability costs nothing.",
                           group=RECIPE)
    class_weights: Literal["none", "auto"] = option(
        "none", "auto: in a class's loss, a picture that shows it counts as often as there are pictures without the"
        " class for each with it, at most 20 times.", group=RECIPE)
    box_jitter: float = option(0.0, "In training, shift and scale boxes at random by up to this share of their"
                               " sides.", group=RECIPE)
    distill: float = option(0.0, "Share of the global stream's loss in which the fused probabilities take the"
                            " place of the labels.", group=RECIPE)
    own_region: float = option(0.0, "Share of the local stream's loss in which a class that chose a region is judged"
                               " by that region alone.", group=RECIPE)
    one_look_share: float = option(0.0, "Train the global stream alone for this share of the epochs, then both: one"
                                   " look a picture is several times as fast.", group=RECIPE)
    clip_norm: float = option(0.0, "Scale gradients down so that the norm over all weights is at most this; 0:"
                              " never.", group=RECIPE)
    accumulate_steps: int = option(1, "Update the weights once in so many steps, by the mean of their gradients:"
                                   " like a batch that many times as large, except for BatchNorm.", group=RECIPE)
    freeze_backbone_epochs: int = option(0, "Number of epochs at the start that train only the 1x1 convolution.",
                                         group=RECIPE)
    ema_decay: float = option(0.0, "Evaluate and save a moving average of the weights instead of the weights"
                              " themselves; the share of the average that each step keeps, such as 0.999; 0: no"
                              " average.", group=RECIPE)
    early_stopping_epochs: int = option(0, "Stop after this many epochs without a better mAP on the validation"
                                        " split; 0: never.", group=RECIPE)

    out_dir: Path | None = option(None, "The run folder (default: runs/<dataset>-<backbone>).", group=RUN,
                                  recorded=False)
    seed: int = option(0, "Seed of the first weights, the order of the pictures and their augmentation.", group=RUN)
    resume: bool = option(False, "Go on with the run in the run folder, or start one if there is none.", group=RUN,
                          recorded=False)
    overwrite: bool = option(False, "Delete the run in the run folder and start a new one.",
                             group=RUN, recorded=False)
    compare_baseline: bool = option(False, "Then train the plain backbone (top-n 0) by the same recipe, into"
                                    " <run folder>/baseline, and print both results.", group=RUN, recorded=False)
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = option(
        "float32", "Floating-point type in which the backbone computes.", group=RUN)
    low_memory: bool = option(False, "Save memory: train one stream after the other, and compute activations again"
                              " in the backward pass. Gradients stay the same; a step takes about a third longer.",
                              group=RUN)
    xla: bool | None = option(None, "Compile the training step with XLA (default: for long float16 runs on one GPU).",
                              group=RUN, changes_result=False)
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker"] = option(
        "auto", "Devices to train on. auto: mirrored if there are several GPUs, else one_device; mirrored: all GPUs;"
        " multi_worker: several machines, named by TF_CONFIG.", group=RUN)
    sync_batch_norm: bool = option(False, "Let BatchNorm normalize with the batch of all devices together, not with"
                                   " each device's own part.", group=RUN)
    deterministic: bool = option(False, "Give the same numbers each time on a GPU too, at some cost in speed.",
                                 group=RUN)
    checkpoint_minutes: float = option(10.0, "Minutes between checkpoints within an epoch; each epoch also ends with"
                                       " one.", group=RUN, changes_result=False)
    keep_checkpoints: int = option(2, "Number of checkpoints to keep.", group=RUN, changes_result=False)
    # fmt: on

    def __post_init__(self) -> None:
        if self.eval_split is None:
            self.eval_split = self.usual_eval_split

    @property
    def usual_eval_split(self) -> str:
        """The `eval_split` of a user who names none."""
        return "test" if self.fold is None else fold_name(self.fold)

    def check(self) -> None:
        """Refuse options that no run can be made with, before anything slow happens.

        Raises:
            ValueError: a value is not allowed; the error names the option, the allowed values and the value.
            FileNotFoundError: the file of weights does not exist.
        """
        self.check_values()
        check_backbone(
            self.backbone,
            backbone_width=self.backbone_width,
            weights=None if self.init_from or self.goes_on else self.backbone_weights,
            spell=on_command_line,
        )
        given = {field.name for field in _FIELDS if self._is_given(field.name)}
        check_together(vars(self) | {"rate_schedule": self.rate_schedule}, given)

    def check_values(self, named: Callable[[str], str] = on_command_line) -> None:
        """Refuse a value outside its range.

        Args:
            named: how to write an option's name: as on the command line, or as in a file.

        Raises:
            ValueError: a value is not allowed; the error names the option, the allowed values and the value.
        """
        check_ranges(vars(self), named)
        check_looks(self.look_band, self.look_doubt, self.top_n, named)
        check_backbone(
            self.backbone,
            backbone_width=self.backbone_width,
            image_size=self.image_size,
            glance_size=self.glance_size,
            local_size=self.local_size,
            batch_norm=self.batch_norm,
            sync_batch_norm=self.sync_batch_norm,
            spell=named,
        )

    def plain_backbone(self) -> "FitConfig":
        """The same config for the plain backbone: without regions, and without all options that need them."""
        needless = {name: getattr(FitConfig(), name) for name in ONLY_WITH_REGIONS}
        batch_norm = "shared" if self.batch_norm == "per_stream" else self.batch_norm
        return dataclasses.replace(self, top_n=0, batch_norm=batch_norm, **needless)

    @property
    def rate_schedule(self) -> str:
        """The learning rate's schedule: the option `schedule`, or the optimizer's default."""
        return self.schedule or {"sgd": "step", "adamw": "cosine"}[self.optimizer]

    @property
    def goes_on(self) -> bool:
        """Whether the run will continue from a checkpoint, so that it needs no initial weights."""
        return self.resume and any((self.run_dir / "checkpoints").glob("epoch-*"))

    def _is_given(self, name: str) -> bool:
        """Whether the user chose the value, that is, it is neither the default nor the recipe's value."""
        recipe = recipe_defaults(
            vars(self) | {"top_n": 1}
        )  # a file of the recipe's own options may look once
        return getattr(self, name) not in (getattr(FitConfig(), name), recipe.get(name))

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        return self.out_dir or _usual_folder(vars(self))

    @property
    def backbone_weights(self) -> str | None:
        """The option `weights` in the form that `build_mcar` takes."""
        return None if self.weights == "none" else self.weights


_FIELDS = dataclasses.fields(FitConfig)
# Options that `config.yaml` leaves out, so that it can repeat the run anywhere: its place and how it was started.
NOT_RECORDED = tuple(field.name for field in _FIELDS if not field.metadata.get("recorded", True))
# Options that change no computed number (`xla`: only last digits), and so may differ when a run is resumed.
MAY_CHANGE = tuple(field.name for field in _FIELDS if not field.metadata.get("changes_result", True))


def parse_fit_config(argv: Sequence[str] | None = None) -> FitConfig:
    """Read and check the options. The command line overrides `--config FILE`, which overrides the recipe."""
    config = parse_options(
        FitConfig,
        argv,
        module="mcar_tf.fit",
        description=_describe,
        defaults_of=lambda given: recipe_defaults(
            {**given, "recipe": given["recipe"] or _recipe_so_far(given)}
        ),
    )
    values, said = _renamed(vars(config))
    if said:
        print(said, file=sys.stderr)
    config = FitConfig(**values)
    config.check()
    return config if config.top_n else config.plain_backbone()


def _usual_folder(options: Mapping[str, Any]) -> Path:
    """The run folder where the user names none."""
    fold = f"-{fold_name(options['fold'])}" if options["fold"] is not None else ""
    return Path("runs") / f"{options['dataset']}-{options['backbone']}{fold}"


def _describe(given: Mapping[str, Any]) -> str:
    usual, why = own_recipe(given["dataset"])
    recipe = given["recipe"] or usual
    return (
        "Train MCAR on a multi-label image set. Without options: on digits, which needs no download. Defaults below"
        f" are those of a run on {given['dataset']} by recipe {recipe}{', ' + why if recipe == usual else ''}. Give"
        " --dataset or --recipe beside --help to see others."
    )


def _recipe_so_far(given: Mapping[str, Any]) -> str | None:
    """The recipe of the run that `--resume` goes on with, the paper's if it has none noted; None without a run."""
    if not given["resume"]:
        return None
    folder = given["out_dir"] or _usual_folder(given)
    file = folder / "config.yaml"
    if not file.is_file():
        return None
    values = read_yaml(file)
    return (values.get("recipe") if isinstance(values, dict) else None) or "paper"


def change_without_training(
    config: FitConfig, changes: Mapping[str, Any], named: Callable[[str], str] = on_command_line
) -> FitConfig:
    """A run's config with other values for options in `WITHOUT_TRAINING`; None leaves an option as it is.

    Args:
        config: of the run.
        changes: option -> value.
        named: how to write an option's name.

    Raises:
        ValueError: a value is outside its range or does not go with the run, or an option would have no effect.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    check_changes(vars(config), given, named)
    changed = dataclasses.replace(config, **given)
    if changed.top_n == 0:  # the run's own need regions; a crop larger than the picture would be refused
        crop = None if (changed.local_size or 0) > changed.image_size else changed.local_size
        changed = dataclasses.replace(changed, look_band=None, look_doubt=0.0, local_size=crop)
    changed.check_values(named)
    return changed


def config_to_yaml(config: FitConfig) -> str:
    """The options of a run as YAML, for its `config.yaml`.

    An `eval_split` that follows from the fold is left out, so that the file serves for other folds too.
    """
    import yaml

    values = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(config).items()
        if name not in NOT_RECORDED
    }
    if config.fold is not None and config.eval_split == config.usual_eval_split:
        del values["eval_split"]
    return yaml.safe_dump(values, sort_keys=False)


def read_config(path: Path) -> FitConfig:
    """Read what `config_to_yaml` wrote. Options newer than the file, which are not in it, get their defaults.

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
    """Rename options of older versions, and return a note for the user: `learning` used to be called `loss`."""
    old = values.get("loss")
    if old not in LEARNINGS:
        return values, ""
    said = f"`--loss {old}` is now `--learning {old}`; `--loss` is one of {', '.join(LOSSES)}."
    return values | {"loss": "bce", "learning": old}, said

"""The allowed values of a run's options, for each option alone and in combination. Loads no TensorFlow."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pipelines.samples import fold_name
from pipelines.words import spell

LEARNINGS = ("pair", "single")
LOSSES = ("bce", "asymmetric")
NO_SPLIT = "none"  # `--eval-split none`: nothing is measured at the end

MOST = 2**16  # a larger count or side in px is surely a typing error, and would exhaust the memory


def _count(least: int) -> tuple[str, Callable[[Any], bool]]:
    return f"in [{least}, {MOST}]", lambda value: least <= value <= MOST


_POSITIVE = "positive", lambda value: 0 < value < math.inf
_NOT_NEGATIVE = "0 or more", lambda value: 0 <= value < math.inf
_BELOW_1 = "in [0, 1)", lambda value: 0 <= value < 1
# Option -> the allowed values, in words and as a test.
RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("epochs", "batch_size", "keep_checkpoints", "accumulate_steps", "shuffle_megabytes"),
        _count(1),
    ),
    **dict.fromkeys(("image_size", "glance_size", "local_size"), _count(1)),
    **dict.fromkeys(("top_n", "freeze_backbone_epochs", "early_stopping_epochs", "fold"), _count(0)),
    **dict.fromkeys(("learning_rate", "head_learning_rate", "head_rate_factor", "drop_factor"), _POSITIVE),
    **dict.fromkeys(("checkpoint_minutes", "csra_temperature", "box_spread"), _POSITIVE),
    **dict.fromkeys(("weight_decay", "warmup_epochs", "clip_norm"), _NOT_NEGATIVE),
    **dict.fromkeys(("csra_lambda", "min_box_cells", "gamma_positive", "gamma_negative"), _NOT_NEGATIVE),
    **dict.fromkeys(("momentum", "ema_decay", "tau", "val_fraction", "margin", "one_look_share"), _BELOW_1),
    **dict.fromkeys(("gwp_lambda", "distill", "own_region"), ("in [0, 1]", lambda value: 0 <= value <= 1)),
    "box_jitter": ("in [0, 0.5]", lambda value: 0 <= value <= 0.5),
    "seed": (f"in [0, {2**32 - 1}]", lambda value: 0 <= value < 2**32),
    "drop_epochs": (
        "positive and ascending",
        lambda value: all(epoch > 0 for epoch in value) and sorted(value) == value,
    ),
    "loss": (f"one of {', '.join(LOSSES)}", LOSSES.__contains__),
}

# (Option, value) -> options that have an effect only if that option has that value. `rate_schedule` is `schedule`, or
# the optimizer's default.
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
# Options that have an effect only if the model looks at regions.
ONLY_WITH_REGIONS = (
    *("glance_size", "local_size", "localizer", "box_spread", "min_box_cells", "box_jitter"),
    *("fusion", "look_band", "look_doubt", "distill", "own_region", "one_look_share"),
)


def on_command_line(name: str) -> str:
    """An option as users type it: `image_size` -> `--image-size`."""
    return f"--{spell(name)}"


def check_ranges(values: Mapping[str, Any], named: Callable[[str], str]) -> None:
    """Refuse a value outside its range.

    Args:
        values: option -> value; all options of a run.
        named: how to write an option's name: as on the command line, or as in a file.

    Raises:
        ValueError: a value is not allowed; the error names the option, the allowed values and the value.
    """
    for name, (allowed, may_be) in RANGES.items():
        value = values[name]
        if value is not None and not may_be(value):
            raise ValueError(f"`{named(name)}` must be {allowed}. Received: {value}")
    if values["freeze_backbone_epochs"] > values["epochs"]:
        raise ValueError(
            f"`{named('freeze_backbone_epochs')}` must be in [0, {values['epochs']}], the epochs."
            f" Received: {values['freeze_backbone_epochs']}"
        )
    share, epochs = values["one_look_share"], values["epochs"]
    if share and not 0 < round(share * epochs) < epochs:
        raise ValueError(
            f"`{named('one_look_share')}` {share} of {epochs} epochs are {round(share * epochs)}: at least one epoch"
            " must look once, and one twice. Give another share or more epochs."
        )


def check_together(values: Mapping[str, Any], given: Collection[str]) -> None:
    """Refuse options that have no effect, or no sensible one, in combination with the others.

    Args:
        values: option -> value; all options of a run, and its `rate_schedule`.
        given: the options whose values the user chose.

    Raises:
        ValueError: options do not go together; the error names them as on the command line.
    """
    if values["fold"] is not None:
        _check_fold(values, given)
    if values["freeze_backbone_epochs"] and values["weights"] == "none" and values["init_from"] is None:
        raise ValueError("--freeze-backbone-epochs would keep random weights: give --weights or --init-from.")
    if values["deterministic"] and values["augment"] == "gridmask":
        raise ValueError("--augment gridmask draws random numbers of its own: it can't be --deterministic.")
    if values["compare_baseline"] and values["top_n"] == 0:
        raise ValueError(
            "--compare-baseline does nothing with --top-n 0, the baseline itself. Leave one out."
        )
    for (decider, value), names in ONLY_WITH.items():
        if values[decider] != value:
            typed = decider
            if decider == "rate_schedule":
                typed = "schedule" if values["schedule"] else "optimizer"
            by_recipe = values["recipe"] == "modern" and typed not in given
            said = f"{on_command_line(typed)} {values[typed]}" + (
                ", which is --recipe modern's" if by_recipe else ""
            )
            _refuse_given(names, given, said)
    if values["top_n"] == 0:
        check_looks_once({name: values[name] for name in given})
        if values["batch_norm"] == "per_stream" and "batch_norm" in given:
            raise ValueError(
                "--batch-norm per_stream does nothing with --top-n 0, which has one stream. Leave it out."
            )
    if values["sync_batch_norm"] and values["batch_norm"] == "frozen":
        raise ValueError("--sync-batch-norm does nothing with --batch-norm frozen. Leave one out.")
    if values["init_from"] and "weights" in given and values["weights"] != "none":
        raise ValueError(
            "--weights does nothing with --init-from, which has weights of its own. Leave one out."
        )
    if values["resume"] and values["overwrite"]:
        raise ValueError("--resume and --overwrite exclude each other. Give one of them.")


def check_looks_once(given: Mapping[str, Any], named: Callable[[str], str] = on_command_line) -> None:
    """Refuse options that have an effect only with regions, for a model that looks once.

    Args:
        given: option -> value, of the options whose values the user chose.
        named: how to write an option's name.

    Raises:
        ValueError: there is such an option; the error says what to do instead.
    """
    once = f"does nothing with `{named('top_n')} 0`, which looks once"
    if "glance_size" in given:
        size = given["glance_size"]
        raise ValueError(
            f"`{named('glance_size')} {size}` {once}: `{named('image_size')} {size}` is the plain model at that size."
        )
    for name in ONLY_WITH_REGIONS:
        if name in given:
            raise ValueError(f"`{named(name)}` {once}. Leave it out.")


def check_changes(
    run: Mapping[str, Any], given: Mapping[str, Any], named: Callable[[str], str] = on_command_line
) -> None:
    """Refuse changes of a trained run that do not go with what it has learnt, or with sizes that it keeps.

    Args:
        run: option -> value; all options of the run.
        given: option -> value, of the options that change.
        named: how to write an option's name.

    Raises:
        ValueError: a value is outside its range, or does not go with the run; the error says which does.
    """
    values = {**run, **given}
    check_ranges(values, named)
    image, glance, crop = values["image_size"], values["glance_size"], values["local_size"]
    if values["top_n"] == 0 and run["glance_size"] is not None:  # one look of the run is a glance, too
        check_looks_once({name: given[name] for name in given if name != "glance_size"}, named)
        needed = glance * (run["image_size"] // run["glance_size"])
        if "glance_size" in given and image != needed:
            raise ValueError(
                f"`{named('glance_size')} {glance}` of `{named('image_size')} {image}` is no look that the run has"
                f" learnt, whose glance is {run['glance_size']} of {run['image_size']} px. Give"
                f" `{named('image_size')} {needed}`."
            )
    elif values["top_n"] == 0:
        check_looks_once(given, named)
    elif "local_size" not in given and crop is not None and crop > image:
        raise ValueError(
            f"`{named('image_size')}` must be at least {crop}, the run's local-size, unless `{named('local_size')}`"
            f" is smaller, too. Received: {image}"
        )
    if "glance_size" not in given and glance is not None and image % glance:
        below = image // glance * glance
        works = f"{below} or {below + glance}" if below else f"{glance}"
        raise ValueError(
            f"`{named('image_size')}` must be a multiple of {glance}, the run's glance-size, such as {works}."
            f" Received: {image}"
        )


def _check_fold(values: Mapping[str, Any], given: Collection[str]) -> None:
    """Refuse other splits beside a fold, which decides what is trained and evaluated on."""
    own = fold_name(values["fold"])
    for name, refused in (
        ("train_split", "train_split" in given),
        ("eval_split", values["eval_split"] not in (own, NO_SPLIT)),
    ):
        if refused:
            raise ValueError(
                f"{on_command_line(name)} {values[name]} does nothing with --fold {values['fold']}, which trains on"
                f" all folds but {own} and evaluates on {own}. Leave it out."
            )


def _refuse_given(names: Sequence[str], given: Collection[str], other: str) -> None:
    for name in names:
        if name in given:
            raise ValueError(f"{on_command_line(name)} does nothing with {other}. Leave it out.")

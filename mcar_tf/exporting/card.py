"""Write the model card of an export in Markdown: data, recipe, metrics and limits."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mcar_tf import config
from mcar_tf.config import FitConfig
from mcar_tf.evaluating import columns
from mcar_tf.model_options import WITHOUT_TRAINING
from mcar_tf.runs.folder import read_origin
from mcar_tf.runs.loading import Run
from mcar_tf.runs.splits import find_split, split_names
from mcar_tf.runs.thresholds import Thresholds
from pipelines.manifest import Manifest
from pipelines.words import counted

MODEL = ("backbone", "backbone_width", "image_size", "local_size", "pooling", "top_n", "tau")
RECIPE = (
    *MODEL,
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "head_learning_rate",
    "loss",
    "augment",
    "seed",
)
# The card has a line for each other option of the model and the recipe that differs from the paper's value.
BEYOND = tuple(
    field.name
    for field in dataclasses.fields(FitConfig)
    if field.metadata["group"] in (config.MODEL, config.RECIPE) and field.name not in (*RECIPE, "recipe")
)


def make_run_card(
    run: Run, trained_with: FitConfig, manifest: Manifest, checkpoint: str, metrics: Mapping[str, Any]
) -> str:
    """The card of a run that is being exported.

    Args:
        run: the run, with the options that it is exported with.
        trained_with: the options that it was trained with.
        manifest: manifest of its prepared set.
        checkpoint: which checkpoint the weights are from, "last" or "best".
        metrics: the run's `metrics.json`, by split.
    """
    exported_as = {name: getattr(run.config, name) for name in WITHOUT_TRAINING}
    exported_as = {name: value for name, value in exported_as.items() if value != getattr(trained_with, name)}
    if checkpoint != "last":
        exported_as["checkpoint"] = checkpoint
    return make_card(
        run.path.resolve().name,
        run.classes,
        trained_with,
        manifest,
        pictures={
            name: find_split(trained_with, manifest, name).examples
            for name in split_names(trained_with, manifest)
        },
        metrics=metrics,
        exported_as=exported_as,
        decision=run.decision,
        origin=read_origin(run.path),
    )


def make_card(
    name: str,
    classes: Sequence[str],
    config: FitConfig,
    manifest: Manifest,
    pictures: Mapping[str, int],
    metrics: Mapping[str, Any],
    exported_as: Mapping[str, Any],
    decision: Thresholds,
    origin: Mapping[str, Any] | None = None,
) -> str:
    """What a reader needs to know who has the exported files and nothing else.

    Args:
        name: name of the run.
        classes: C class names.
        config: what the run was trained with.
        manifest: manifest of the set that it was trained on.
        pictures: how many pictures of each split the run saw.
        metrics: the run's `metrics.json`, by split.
        exported_as: options of the export that differ from the run's; `checkpoint` if it is not the last one.
        decision: the probability from which on each class counts as present.
        origin: for an imported run, where its weights come from.
    """
    recipe: tuple[str, ...] = MODEL if origin else RECIPE
    recipe += tuple(name for name in BEYOND if getattr(config, name) != getattr(FitConfig(), name))
    sections = [
        f"# {name}",
        f"Multi-label image recognition: which of {len(classes)} classes are in a picture, several at once, and where"
        " it looked. It is MCAR (Gao & Zhou, IEEE TIP 2021): the whole picture is looked at once, then the"
        f" {counted(config.top_n, 'region')} that the most probable classes point at.",
        f"Classes: {', '.join(classes)}.",
        "## Data",
        _data(config, manifest, pictures, trained_here=origin is None),
        "## Recipe",
        *([_origin(origin)] if origin else []),
        _table(("option", "value"), [(option, getattr(config, option)) for option in recipe]),
        "## Metrics",
        _metrics(metrics),
    ]
    if exported_as:
        changed = ", ".join(f"{option} {value}" for option, value in exported_as.items())
        sections.append(f"These are the run's. It was exported with other options: {changed}.")
    sections += ["## Limits", _limits(manifest, decision, metrics)]
    return "\n\n".join(sections) + "\n"


def _origin(origin: Mapping[str, Any]) -> str:
    said = "".join(f", {name} {value}" for name, value in origin.items() if name not in ("file", "sha256"))
    return (
        f"Not trained here: the weights are those of `{origin['file']}` (SHA-256 {origin['sha256']}{said}), a"
        " checkpoint of the MCAR authors' PyTorch code. On the same picture its global probabilities are those of"
        " that code. Its boxes, and with them the local probabilities, follow the paper's rule, the run of positions"
        " above tau that holds the maximum: that code also considers runs below tau and is off by one at borders. The"
        " options below were given when it was imported: the checkpoint does not say them."
    )


def _data(
    config: FitConfig, manifest: Manifest, pictures: Mapping[str, int], trained_here: bool = True
) -> str:
    splits = {"trained on": config.train_split} if trained_here else {}
    splits |= {"measured on": config.eval_split}
    # The pictures that the model was trained on may be missing where it is exported.
    rows = [(what, name, pictures[name]) for what, name in splits.items() if name in pictures]
    lines = [f"`{manifest.name}`: {manifest.source}."]
    if manifest.licence:
        lines.append(f"Terms of the pictures: {manifest.licence}.")
    return "\n\n".join([*lines, _table(("", "split", "pictures"), rows)])


def _metrics(metrics: Mapping[str, Any]) -> str:
    tables, shown = [], columns.measures(columns.Detail.PAPER)
    for split, measured in metrics.items():
        rows = [
            (title, *columns.cells(shown, measured[stream]))
            for stream, title in columns.STREAM_TITLES.items()
            if stream in measured
        ]
        tables += [
            f"On `{split}`, {measured['images']} pictures, in %:",
            _table(("", *columns.titles(shown)), rows),
        ]
    return "\n\n".join(tables)


def _limits(manifest: Manifest, decision: Thresholds, metrics: Mapping[str, Any]) -> str:
    limits = [
        f"It knows the classes above and no others, as the pictures of {manifest.name} show them. On other pictures"
        " (night, drawings, medical, views from above) expect less than the metrics say, and measure.",
        "Boxes were not learnt from boxes: they are where the network found a class most convincing, often a part of"
        " an object or several objects together. They are not detections, and there is at most one a class.",
        "It sees the picture warped to a square: what is very long or very small in it may be lost.",
        "A class has a threshold of its own, from which on it counts as present: `thresholds.json`."
        if decision.calibrated
        else "Probabilities are not calibrated: 0.5 does not mean half of the cases. The threshold is"
        f" {decision.said}. Choose thresholds on pictures of your own (`python -m mcar_tf.calibrate`).",
        *_steadiness(metrics),
        "It inherits the biases of its training pictures. Do not use it to judge people.",
    ]
    return "\n".join(f"- {limit}" for limit in limits)


def _steadiness(metrics: Mapping[str, Any]) -> list[str]:
    return [
        f"On `{split}` its labels change in "
        + ", in ".join(
            f"{100 * found['changed']:.1f} % of the pictures when they are {columns.VARIANT_TITLES[name]}"
            for name, found in measured["steadiness"].items()
            if name in columns.VARIANT_TITLES
        )
        + "."
        for split, measured in metrics.items()
        if "steadiness" in measured
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return "-" if value is None else str(value).replace("|", "\\|")

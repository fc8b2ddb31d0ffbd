"""The probability at which a class is predicted: its calibrated threshold if that was chosen for the model, else 0.6.

`calibrate` writes `thresholds.json` into the run folder, and records there what the thresholds were chosen for: the
checksum of the weights, and every option that the model's answers depend on. Every command that needs thresholds
takes them from here and prints `said`. Loads no TensorFlow.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcar_tf.config import MODEL, FitConfig
from pipelines.files import file_sha256, write_text
from pipelines.reading import read_json_object
from pipelines.words import spell

THRESHOLDS = "thresholds.json"
DEFAULT_THRESHOLD = 0.6  # section IV-A2 of the paper


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """The decision thresholds of a model, and where they come from.

    Attributes:
        values: C probabilities, in the order of the model's outputs; a class is predicted at its own or above.
        said: which thresholds are used and why, as the end of "thresholds: ...".
        calibration: content of `thresholds.json` if the thresholds come from there, else None.
    """

    values: tuple[float, ...]
    said: str
    calibration: Mapping[str, Any] | None = None

    @property
    def calibrated(self) -> bool:
        """Whether `calibrate` chose them for exactly this model."""
        return self.calibration is not None


def same_for_all(classes: Sequence[str], threshold: float, said: str = "") -> Thresholds:
    """One threshold for every class."""
    return Thresholds((threshold,) * len(classes), said or f"{threshold:g} for every class")


def find_thresholds(
    folder: Path, config: FitConfig, classes: Sequence[str], weights_file: Path, selection: str = "top"
) -> Thresholds:
    """The thresholds of a run's model: the calibrated ones if they were chosen for exactly this model.

    Args:
        folder: the run folder.
        config: the options that the model was built with, overrides included.
        classes: C names.
        weights_file: the file that the model's weights come from.
        selection: which classes' maps become regions.

    Raises:
        ValueError: `thresholds.json` is damaged.
    """
    calibration = read_calibration(folder, classes)
    if calibration is None:
        return same_for_all(
            classes,
            DEFAULT_THRESHOLD,
            f"{DEFAULT_THRESHOLD:g} for every class (`calibrate` finds better ones)",
        )
    differing = differences(calibration, chosen_for(config, weights_file, selection))
    if differing:
        return same_for_all(
            classes,
            DEFAULT_THRESHOLD,
            f"{DEFAULT_THRESHOLD:g} for every class, since {folder / THRESHOLDS} was chosen for {differing}"
            " (`calibrate` renews it)",
        )
    values = tuple(float(calibration["thresholds"][name]) for name in classes)
    return Thresholds(values, f"each class's own, from {folder / THRESHOLDS}", calibration)


def chosen_for(config: FitConfig, weights_file: Path, selection: str = "top") -> dict[str, Any]:
    """What thresholds depend on: the weights, and the options that the model's answers depend on."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    options = {
        name: getattr(config, name) for name, field in fields.items() if field.metadata["group"] == MODEL
    }
    if config.glance_size == config.image_size:
        options["glance_size"] = None  # both mean the same
    options["local_size"] = config.local_size or config.glance_size or config.image_size
    named = {spell(name): value for name, value in options.items()}
    return {"weights": file_sha256(weights_file), "options": named | {"selection": selection}}


def differences(calibration: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """How the model that thresholds were chosen for differs from this one, in words; empty if it is the same.

    Args:
        calibration: content of `thresholds.json`.
        model: what `chosen_for` returns for this model.
    """
    before = calibration.get("chosen_for")
    if not isinstance(before, Mapping) or not isinstance(before.get("options"), Mapping):
        return "something that it does not tell"
    found = [] if before.get("weights") == model["weights"] else ["other weights"]
    # An option that is newer than the file then acted as its default does.
    defaults = {spell(field.name): field.default for field in dataclasses.fields(FitConfig)}
    options = defaults | dict(before["options"])
    found += [
        f"--{name} {options.get(name)}, not {value}"
        for name, value in model["options"].items()
        if options.get(name) != value
    ]
    return " and ".join(found)


def write_calibration(folder: Path, content: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Write `thresholds.json`.

    Args:
        folder: the run folder.
        content: serializable as JSON; `thresholds` maps each class name to a probability.
        model: what `chosen_for` returns for the model that they were chosen for.
    """
    text = json.dumps({**content, "chosen_for": model}, indent=1, allow_nan=False)
    write_text(folder / THRESHOLDS, text + "\n")


def read_calibration(folder: Path, classes: Sequence[str]) -> dict[str, Any] | None:
    """The content of `thresholds.json`, or None where `calibrate` has not been run.

    Raises:
        ValueError: the file is not what `write_calibration` writes for these classes.
    """
    path = folder / THRESHOLDS
    if not path.is_file():
        return None
    advice = "Delete it, or run `calibrate` again."
    content = read_json_object(path)
    thresholds = content.get("thresholds")
    if not isinstance(thresholds, dict) or list(thresholds) != list(classes):
        raise ValueError(
            f"{path}: `thresholds` must name the run's {len(classes)} classes in order. {advice}"
        )
    for name, value in thresholds.items():
        if not _lies_between(value, 0, 1):
            raise ValueError(
                f"{path}: the threshold of `{name}` must lie in [0, 1]. Received: {value}. {advice}"
            )
    for name, is_right, kind in (
        ("split", lambda value: isinstance(value, str), "a text"),
        ("temperature", lambda value: _lies_between(value, 0.01, 100), "a number from 0.01 to 100"),
        ("before", _holds_shares, "an object with numbers of 0 to 1"),
        ("after", _holds_shares, "an object with numbers of 0 to 1"),
    ):
        if name in content and not is_right(content[name]):
            raise ValueError(f"{path}: `{name}` must be {kind}. Received: {content[name]!r:.60}. {advice}")
    return content


def _lies_between(value: Any, low: float, high: float) -> bool:
    """Whether it is a number in [low, high]; NaN is not."""
    return not isinstance(value, bool) and isinstance(value, int | float) and low <= value <= high


def _holds_shares(value: Any) -> bool:
    return isinstance(value, dict) and all(
        share is None or _lies_between(share, 0, 1) for share in value.values()
    )

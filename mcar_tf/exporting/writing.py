"""Export a loaded run: write its forms, compare them with the model on real pictures, and write their documents."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mcar_tf.exporting.folder import (
    CARD,
    LABELS,
    PARITY,
    THRESHOLDS,
    labels_text,
    parity_text,
    thresholds_text,
)
from mcar_tf.exporting.forms import Form, Material
from mcar_tf.exporting.parity import Parity, measure_parity, missed_bars, parity_lines
from mcar_tf.exporting.pictures import count_batches, picture_batches
from mcar_tf.models.mcar import MCAR
from mcar_tf.runs.loading import Run
from pipelines.manifest import Portion, Split

# Options of `build_mcar`, enough to build a model that takes the same time.
MODEL_OPTIONS = (
    "backbone",
    "backbone_width",
    "image_size",
    "glance_size",
    "local_size",
    "pooling",
    "gwp_lambda",
    "csra_temperature",
    "csra_lambda",
    "top_n",
    "tau",
    "localizer",
    "box_spread",
    "min_box_cells",
    "fusion",
    "look_band",
    "look_doubt",
    "batch_norm",
)


def write_forms(forms: Sequence[Form], material: Material, folder: Path) -> None:
    """Write forms into an export folder, and print how long each took."""
    for form in forms:
        with _announced(form.name):
            form.load_module().write_form(material, folder / form.path, form.precision)


@contextlib.contextmanager
def _announced(name: str) -> Iterator[None]:
    print(f"writing {name} ...", end=" ", flush=True)
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:.0f} s")


def compare_forms(
    forms: Sequence[Form], model: MCAR, folder: Path, split: Split | Portion, pictures: int
) -> dict[str, Parity]:
    """Run the forms in an export folder and their model on the same pictures; print how far each is from the model.

    Args:
        forms: the forms that were written.
        model: the model that they were made from.
        folder: the export folder.
        split: the split whose pictures they are compared on.
        pictures: the largest number of pictures.

    Returns:
        Each form's parity, by the form's name.
    """
    loaded = {form.name: form.load_module().load_form(folder / form.path) for form in forms}
    batches = tqdm(
        picture_batches(split, model, pictures),
        total=count_batches(split, pictures),
        desc="comparing",
        unit=" batches",
        leave=False,
        mininterval=1,
    )
    parities = measure_parity(model, loaded, batches)
    print("", *parity_lines(parities), sep="\n")
    return parities


def list_missed_bars(forms: Sequence[Form], parities: Mapping[str, Parity]) -> list[str]:
    """The limits that each form exceeds, in words."""
    return [f"{form.name}: {line}" for form in forms for line in missed_bars(form.bar, parities[form.name])]


def write_papers(
    folder: Path,
    run: Run,
    card: str,
    split: str,
    forms: Sequence[Form],
    parities: Mapping[str, Parity],
) -> None:
    """Write the documents about the forms in an export folder, for people and for programs.

    Args:
        folder: the export folder.
        run: the run that was exported.
        card: the model card, to which the table of parities is added.
        split: the split on which the parities were measured.
        forms: the forms that were written.
        parities: the parities of the forms, by name.
    """
    (folder / LABELS).write_text(labels_text(run.classes), encoding="utf-8")
    if run.thresholds is not None:
        (folder / THRESHOLDS).write_text(thresholds_text(run.classes, run.thresholds), encoding="utf-8")
    content: dict[str, Any] = {
        "model": {
            "num_classes": len(run.classes),
            **{name: getattr(run.config, name) for name in MODEL_OPTIONS},
        },
        "dataset": run.config.dataset,
        "split": split,
        "forms": {name: dataclasses.asdict(parity) for name, parity in parities.items()},
        "bars": {form.name: dataclasses.asdict(form.bar) for form in forms},
    }
    (folder / PARITY).write_text(parity_text(content), encoding="utf-8")
    lines = [card, "## How far each form is from the model", "```", "", *parity_lines(parities), "```", ""]
    (folder / CARD).write_text("\n".join(lines), encoding="utf-8")

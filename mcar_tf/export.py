"""Export: `python -m mcar_tf.export --run DIR`. A run in, a folder with what servers and phones load out.

exported/<name>/
  saved_model/1/             for TensorFlow Serving and `tf.saved_model.load`
  mcar-<precision>.tflite    for LiteRT on phones
  labels.txt                 class names, one a line, in the order of the outputs
  thresholds.json            after `calibrate`: the probability from which on each class counts as present
  card.md                    data, recipe, metrics, limits, and how far each form is from the model
  parity.json                the last, in numbers
"""

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mcar_tf.config import FitConfig, read_config
from mcar_tf.runs.splits import find_split, split_names
from pipelines.command import EXIT_INTERNAL, load_tensorflow, option, parse_options, run_command
from pipelines.files import folder_written_whole
from pipelines.manifest import Manifest, Portion, Split, load_manifest

if TYPE_CHECKING:
    from mcar_tf.exporting.parity import Parity, PictureBatch
    from mcar_tf.runs.loading import Run

WHAT, MODEL, CHECK = "what", "model, without retraining", "check"
BATCH_SIZE = 16
# Options that a model is built by, as `build_mcar` names them: enough to build one that takes the same time.
MODEL_OPTIONS = (
    "backbone",
    "backbone_width",
    "image_size",
    "local_size",
    "pooling",
    "gwp_lambda",
    "top_n",
    "tau",
)


@dataclasses.dataclass
class ExportOptions:
    """What `export` can be told."""

    # fmt: off
    run: Path = option(dataclasses.MISSING, "The run folder.", group=WHAT)
    out_dir: Path | None = option(None, "The export folder (null: exported/<name of the run folder>).", group=WHAT)
    overwrite: bool = option(False, "Replace the export folder that is there.", group=WHAT)
    formats: list[Literal["saved_model", "tflite"]] = option(
        ["saved_model", "tflite"], "saved_model: for servers; tflite: for phones.", group=WHAT)
    precision: list[Literal["float32", "float16", "dynamic", "int8"]] = option(
        ["float32"], "Of the TFLite files, one each. float16: half the size; dynamic: weights of 8 bits; int8: the"
        " whole network in 8 bits, calibrated on pictures of the training split.", group=WHAT)
    tflite_input: Literal["float32", "uint8"] = option(
        "float32", "What a TFLite file takes: RGB in [0, 255], as floats or as bytes.", group=WHAT)

    checkpoint: Literal["last", "best"] = option("last", "Weights: the result of the run, or those that were best on"
                                                 " its validation split.", group=MODEL)
    image_size: int | None = option(None, "Side of the images in px (null: the run's).", group=MODEL)
    local_size: int | None = option(None, "Side of the regions' crops in px (null: the run's).", group=MODEL)
    top_n: int | None = option(None, "Regions an image (null: the run's).", group=MODEL)
    tau: float | None = option(None, "Localization threshold in [0, 1) (null: the run's).", group=MODEL)

    data_dir: Path | None = option(None, "Where prepared sets lie (null: where they lay for the run).", group=CHECK)
    split: str | None = option(None, "Split on whose pictures each form is run beside the model (null: the run's"
                               " eval-split).", group=CHECK)
    pictures: int = option(500, "How many of them.", group=CHECK)
    calibration_pictures: int = option(200, "Pictures of the training split that int8 finds its ranges on.",
                                       group=CHECK)
    # fmt: on

    def check(self) -> None:
        """Refuse what can't be done, before anything slow happens."""
        for name in ("pictures", "calibration_pictures"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name.replace('_', '-')}` must be at least 1. Received: {getattr(self, name)}"
                )
        for name, needed, needs in (
            ("precision", "tflite" in self.formats, "--formats tflite"),
            ("tflite_input", "tflite" in self.formats, "--formats tflite"),
            ("calibration_pictures", self.needs_calibration, "--precision int8"),
        ):
            if not needed and getattr(self, name) != getattr(ExportOptions(self.run), name):
                raise ValueError(f"`{name.replace('_', '-')}` does nothing without {needs}. Leave it out.")
        if self.needs_calibration and importlib.util.find_spec("ai_edge_quantizer") is None:
            raise ValueError("int8 needs ai-edge-quantizer: pip install 'mcar-tf[phone]'")

    @property
    def needs_calibration(self) -> bool:
        """Whether a form is among those asked for whose ranges are found on pictures."""
        return "tflite" in self.formats and "int8" in self.precision

    @property
    def folder(self) -> Path:
        """The export folder."""
        return self.out_dir or Path("exported") / self.run.resolve().name


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        ExportOptions,
        argv,
        module="mcar_tf.export",
        description="Write a run's model as a SavedModel for servers and as TFLite files for phones, and hold each to"
        " the model on real pictures.",
    )
    options.check()
    config = read_finished_run(options.run)
    manifest = load_manifest(options.data_dir or config.data_dir, config.dataset)
    split = find_split(config, manifest, options.split or config.eval_split)
    calibration = find_calibration_split(config, manifest) if options.needs_calibration else None
    folder = options.folder
    check_place(folder, options.overwrite)

    load_tensorflow()
    from mcar_tf.runs.loading import check_classes, load_run

    run = load_run(
        options.run,
        checkpoint=options.checkpoint,
        **{name: getattr(options, name) for name in ("image_size", "local_size", "top_n", "tau")},
    )
    check_classes(run, manifest)
    with folder_written_whole(folder) as partial:
        card = make_run_card(options, config, run, manifest)
        files = write_forms(options, run, calibration, card, partial)
        parities, missed = check_forms(options, run, split, files)
        if missed:
            print(f"error: nothing was exported: {'; '.join(missed)}", file=sys.stderr)
            raise SystemExit(EXIT_INTERNAL)
        write_papers(options, run, card, parities, partial)
        names = ", ".join(sorted(path.name for path in partial.iterdir()))
        check_place(folder, options.overwrite)  # somebody may have come before
    print(f"\nwritten to {folder}: {names}")


def read_finished_run(run: Path) -> FitConfig:
    """The config of a run that has come to its end."""
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{run} is not a run folder: it holds no config.yaml (python -m mcar_tf.fit makes one)."
        )
    if not (run / "metrics.json").is_file():
        raise FileNotFoundError(
            f"{run} is unfinished: it holds no metrics.json. Finish it: python -m mcar_tf.fit --config"
            f" {shlex.quote(str(run / 'config.yaml'))} --out-dir {shlex.quote(str(run))} --resume"
        )
    return read_config(run / "config.yaml")


def find_calibration_split(config: FitConfig, manifest: Manifest) -> Split | Portion:
    """The pictures that int8 may look at: what the run was trained on, nothing that it held out."""
    if config.train_split not in manifest.splits:
        raise ValueError(
            f"int8 finds its ranges on the run's training split, and {manifest.name} has no {config.train_split} (it"
            f" has {', '.join(manifest.splits)}). Prepare the set with it, or export without int8."
        )
    return find_split(config, manifest, config.train_split)


def check_place(folder: Path, overwrite: bool) -> None:
    """Refuse an export folder that is there, and, with `overwrite` too, to replace anything that is none."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "parity.json").is_file():
        raise FileExistsError(
            f"{folder} is there already and is no export folder: it holds no parity.json. --out-dir puts this one"
            " elsewhere."
        )
    if not overwrite:
        raise FileExistsError(
            f"{folder} is there already. --overwrite replaces it, --out-dir puts this one elsewhere."
        )


def make_run_card(options: ExportOptions, config: FitConfig, run: "Run", manifest: Manifest) -> str:
    """The card of what is exported. config: the run's, before any option of this command."""
    from mcar_tf.exporting.card import make_card

    names = ("image_size", "local_size", "top_n", "tau")
    changed = {name: getattr(run.config, name) for name in names}
    changed = {name: value for name, value in changed.items() if value != getattr(config, name)}
    if options.checkpoint != "last":
        changed["checkpoint"] = options.checkpoint
    return make_card(
        options.run.resolve().name,
        run.classes,
        config,
        manifest,
        pictures={
            name: find_split(config, manifest, name).examples for name in split_names(config, manifest)
        },
        metrics=json.loads((options.run / "metrics.json").read_text()),
        exported_as=changed,
        # `calibrate` takes the run's own options, but for the checkpoint.
        calibrated_with=None if run.calibration is None else run.calibration.get("checkpoint", "last"),
    )


def write_forms(
    options: ExportOptions, run: "Run", calibration: Split | Portion | None, card: str, folder: Path
) -> dict[str, Path]:
    """Write what was asked for; its names and where it lies. calibration: what int8 finds its ranges on."""
    from mcar_tf.exporting.saved_model import write_saved_model
    from mcar_tf.exporting.tflite import write_tflite

    files = {}
    if "saved_model" in options.formats:
        with announced("saved_model"):
            files["saved_model"] = folder / "saved_model" / "1"
            write_saved_model(
                run.model, run.classes, files["saved_model"], thresholds=run.thresholds, card=card
            )
    if "tflite" in options.formats:
        for precision in dict.fromkeys(options.precision):
            name = f"mcar-{precision}.tflite"
            with announced(name):
                files[name] = folder / name
                pictures = None
                if precision == "int8" and calibration:
                    pictures = calibration_pictures(calibration, run, options.calibration_pictures)
                write_tflite(
                    run.model,
                    run.classes,
                    files[name],
                    precision,
                    pictures,
                    input_type=options.tflite_input,
                )
    return files


@contextlib.contextmanager
def announced(name: str) -> Iterator[None]:
    """Say what is being written, and how long it took."""
    print(f"writing {name} ...", end=" ", flush=True)
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:.0f} s")


def calibration_pictures(split: Split | Portion, run: "Run", pictures: int) -> Iterator[Any]:
    """(S, S, 3) pictures of the training split. Records lie in random order: the first are any."""
    for batch in picture_batches(split, run, pictures):
        yield from batch["image"]


def picture_batches(split: Split | Portion, run: "Run", pictures: int) -> Iterator["PictureBatch"]:
    """The first pictures of a split, with the files that they are of and their labels."""
    from pipelines.input_pipeline import make_eval_dataset, read_samples

    decoded = make_eval_dataset(
        split.files,
        num_classes=len(run.classes),
        image_size=run.model.image_size,
        batch_size=BATCH_SIZE,
        difficult="ignore",
    )
    encoded = (picture.encoded for _, picture in read_samples(split.files))
    left = min(pictures, split.examples)
    for batch in decoded.take(-(-left // BATCH_SIZE)).as_numpy_iterator():
        size = min(left, len(batch["image"]))
        left -= size
        files = np.array(list(itertools.islice(encoded, size)), object)
        yield {"encoded": files} | {name: batch[name][:size] for name in ("image", "labels", "weights")}


def check_forms(
    options: ExportOptions, run: "Run", split: Split | Portion, files: dict[str, Path]
) -> tuple[dict[str, "Parity"], list[str]]:
    """Run what was written beside the model; each form's parity, and the bars that were missed."""
    from tqdm import tqdm

    from mcar_tf.exporting import saved_model, tflite
    from mcar_tf.exporting.parity import measure_parity, missed_bars

    forms = {
        name: saved_model.load_form(path) if name == "saved_model" else tflite.load_form(path)
        for name, path in files.items()
    }
    batches = -(-min(options.pictures, split.examples) // BATCH_SIZE)
    pictures = picture_batches(split, run, options.pictures)
    bar = tqdm(pictures, total=batches, desc="comparing", unit=" batches", leave=False, mininterval=1)
    parities = measure_parity(run.model, forms, bar)
    print("\n".join(table_lines(parities)))
    missed = [f"{name}: {line}" for name, parity in parities.items() for line in missed_bars(name, parity)]
    return parities, missed


def table_lines(parities: dict[str, "Parity"]) -> list[str]:
    """How far each form is from the model, for people."""
    width = max(len("against the model"), *(len(name) for name in parities))
    lines = [
        f"\n{'':{width}}   difference of probs   regions of the model that are the form's     mAP, %",
        f"{'against the model':{width}}    global      local     class   same box   mean IoU   model   form",
    ]
    for name, parity in parities.items():
        shares = f"{parity.same_classes:8.1%}   {parity.same_boxes:8.1%}   {parity.box_iou:8.3f}"
        both = (parity.model_mean_ap, parity.form_mean_ap)
        means = "".join(f"{'-' if value is None else f'{100 * value:.2f}':>8}" for value in both)
        lines.append(
            f"{name:{width}}   {parity.global_difference:.1e}   {parity.local_difference:.1e}  {shares} {means}"
        )
    return lines


def write_papers(
    options: ExportOptions, run: "Run", card: str, parities: dict[str, "Parity"], folder: Path
) -> None:
    """Write what people and programs read about the forms, each named at the top of this file."""
    from mcar_tf.exporting.labels import LABELS, THRESHOLDS, labels_text, thresholds_text
    from mcar_tf.exporting.parity import BARS

    (folder / LABELS).write_text(labels_text(run.classes), encoding="utf-8")
    if run.thresholds is not None:
        (folder / THRESHOLDS).write_text(thresholds_text(run.classes, run.thresholds), encoding="utf-8")
    content = {
        "model": {
            "num_classes": len(run.classes),
            **{name: getattr(run.config, name) for name in MODEL_OPTIONS},
        },
        "dataset": run.config.dataset,
        "split": options.split or run.config.eval_split,
        "forms": {name: dataclasses.asdict(parity) for name, parity in parities.items()},
        "bars": {name: dataclasses.asdict(BARS[name]) for name in parities},
    }
    (folder / "parity.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    lines = [card, "## How far each form is from the model", "```", *table_lines(parities), "```", ""]
    (folder / "card.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    run_command(main)

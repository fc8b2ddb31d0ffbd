"""Export: `python -m mcar_tf.export --run DIR`. A run in, a folder with what servers and phones load out."""

import dataclasses
import functools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mcar_tf.config import change_without_training
from mcar_tf.evaluating.metrics_file import read_metrics
from mcar_tf.exporting.finished_run import find_calibration_split, read_finished_run
from mcar_tf.exporting.folder import check_place, new_export_folder
from mcar_tf.exporting.forms import FORMATS, PRECISIONS, Form, Material, choose_forms
from mcar_tf.exporting.litert_js import find_litert
from mcar_tf.model_options import ModelOptions
from mcar_tf.runs.splits import find_split
from pipelines.command import EXIT_INTERNAL, load_tensorflow, option, parse_options, run_command
from pipelines.manifest import load_manifest
from pipelines.words import next_steps, spell, typed

WHAT, CHECK = "what", "check"


@dataclasses.dataclass(kw_only=True)
class ExportOptions(ModelOptions):
    """The options of `export`."""

    # fmt: off
    run: Path = option(dataclasses.MISSING, "The run folder.", group=WHAT)
    out_dir: Path | None = option(None, "The export folder (default: exported/<name of the run folder>).", group=WHAT)
    overwrite: bool = option(False, "Replace the export folder if there is one.", group=WHAT)
    formats: list[str] = option(
        ["saved_model", "tflite"], f"Some of {', '.join(FORMATS)}. saved_model: for servers; tflite: for phones;"
        " web: a page for any browser; onnx: for onnxruntime, OpenVINO and others.", group=WHAT)
    precision: list[str] = option(
        ["float32"], f"Some of {', '.join(PRECISIONS)}: a TFLite file in each. float16: half the size; dynamic:"
        " weights of 8 bits; int8: the whole network in 8 bits, calibrated on pictures of the training split.",
        group=WHAT)
    tflite_input: Literal["float32", "uint8"] = option(
        "float32", "What a TFLite file takes: RGB in [0, 255], as floats or as bytes.", group=WHAT)
    litert: Path | None = option(None, "Where `npm install @litertjs/core` was run: the page then carries its runtime"
                                       " (default: it loads that from a CDN).", group=WHAT)

    data_dir: Path | None = option(None, "Folder of the prepared sets (default: the one that the run used).",
                                   group=CHECK)
    split: str | None = option(None, "Split on whose pictures each form is run beside the model (default: the run's"
                               " eval-split).", group=CHECK)
    pictures: int = option(500, "Number of pictures on which each form is run beside the model.", group=CHECK)
    calibration_pictures: int = option(200, "Number of pictures of the training split by which int8 finds its"
                                       " ranges.",
                                       group=CHECK)
    # fmt: on

    def check(self) -> None:
        """Refuse options that can't work, before anything slow happens."""
        if self.litert:
            find_litert(self.litert)
        for form in self.forms:
            form.check_installed()
        for name in ("pictures", "calibration_pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{spell(name)}` must be at least 1. Received: {getattr(self, name)}")
        for name, needed, needs in (
            ("precision", "tflite" in self.formats, "--formats tflite"),
            ("tflite_input", "tflite" in self.formats, "--formats tflite"),
            ("calibration_pictures", self.needs_calibration, "--precision int8"),
            ("litert", "web" in self.formats, "--formats web"),
        ):
            if not needed and getattr(self, name) != getattr(ExportOptions(run=self.run), name):
                raise ValueError(f"`{spell(name)}` does nothing without {needs}. Leave it out.")

    @property
    def forms(self) -> list[Form]:
        """The requested forms of the model, from the table of forms."""
        return choose_forms(self.formats, self.precision)

    @property
    def needs_calibration(self) -> bool:
        """Whether one of the forms needs pictures to determine its value ranges."""
        return any(form.calibrated for form in self.forms)

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
    changes = options.changes
    change_without_training(config, changes)  # so that errors come before TensorFlow is loaded
    manifest = load_manifest(options.data_dir or config.data_dir, config.dataset)
    split_name = options.split or config.eval_split
    split = find_split(config, manifest, split_name)
    to_calibrate = find_calibration_split(config, manifest) if options.needs_calibration else None
    check_place(options.folder, options.overwrite)

    load_tensorflow()
    from mcar_tf.exporting.card import make_run_card
    from mcar_tf.exporting.pictures import calibration_pictures
    from mcar_tf.exporting.writing import compare_forms, list_missed_bars, write_forms, write_papers
    from mcar_tf.runs.loading import check_classes, load_run
    from pipelines.verify import naming_shards

    run = load_run(options.run, checkpoint=options.checkpoint, **changes)
    check_classes(run, manifest)
    metrics = read_metrics(options.run / "metrics.json")
    card = make_run_card(run, config, manifest, options.checkpoint, metrics)
    calibration = None
    if to_calibrate:
        calibration = functools.partial(
            calibration_pictures, to_calibrate, run.model, options.calibration_pictures
        )
    material = Material(
        run.model,
        run.classes,
        run.thresholds,
        temperature=(run.calibration or {}).get("temperature", 1.0),
        card=card,
        tflite_input=options.tflite_input,
        calibration=calibration,
        name=run.path.resolve().name,
        litert=options.litert,
    )
    with new_export_folder(options.folder, options.overwrite) as partial:
        with naming_shards([*split.files, *(to_calibrate.files if to_calibrate else ())]):
            write_forms(options.forms, material, partial)
            parities = compare_forms(options.forms, run.model, partial, split, options.pictures)
        missed = list_missed_bars(options.forms, parities)
        if missed:
            print(f"error: nothing was exported: {'; '.join(missed)}", file=sys.stderr)
            raise SystemExit(EXIT_INTERNAL)
        write_papers(partial, run, card, split_name, options.forms, parities)
    names = ", ".join(sorted(path.name for path in options.folder.iterdir()))
    print(f"\nwritten to {options.folder}: {names}")
    print(next_steps(*_next_steps(options)))


def _next_steps(options: ExportOptions) -> list[tuple[str, str]]:
    folder = shlex.quote(str(options.folder))
    steps = [
        (f"{typed('mcar_tf.benchmark')} --export {folder}", "how fast each form answers on this machine")
    ]
    if "saved_model" in options.formats:
        steps.append((f"{typed('mcar_tf.serve')} --export {folder}", "a server, with a page to try it on"))
    if "web" in options.formats:
        steps.append(
            (f"python -m http.server --directory {folder}/web", "the page, at http://localhost:8000")
        )
    return steps


if __name__ == "__main__":
    run_command(main)

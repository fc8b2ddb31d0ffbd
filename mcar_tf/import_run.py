"""Import: `python -m mcar_tf.import_run --checkpoint FILE --backbone torch_resnet101 --classes coco`. A checkpoint of
the MCAR authors' PyTorch code in, a run folder out on which every other command works.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mcar_tf.config import FitConfig
from mcar_tf.runs.folder import command_on
from mcar_tf.runs.importing import check_checkpoint, check_folder, import_checkpoint
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.readers.classes import COCO_CATEGORIES, VOC_CLASSES
from pipelines.words import next_steps

WHAT, MODEL, DATA = "what", "model, which a checkpoint says nothing of", "data"


@dataclasses.dataclass
class ImportOptions:
    """The options of `import_run`."""

    # fmt: off
    checkpoint: Path = option(dataclasses.MISSING, "File that the authors' code wrote, such as model_best.pth.tar.",
                              group=WHAT)
    backbone: str = option(dataclasses.MISSING, "Network of the checkpoint: torch_resnet50, torch_resnet101 or"
                           " torch_mobilenet_v2.", group=WHAT)
    classes: str = option(dataclasses.MISSING, "Class names: voc; coco, in alphabetical order as in its"
                          " checkpoints; or a file with one name per line, in the order of the checkpoint.",
                          group=WHAT)
    out_dir: Path = option(dataclasses.MISSING, "Run folder to create.", group=WHAT)

    image_size: int = option(448, "Side in px of the images that it was trained on.", group=MODEL)
    pooling: Literal["gap", "gmp", "gwp"] = option("gwp", "Global pooling that it was trained with; the authors call"
                                                   " them avg, max and gwp.", group=MODEL)
    top_n: int = option(4, "Regions looked at per image.", group=MODEL)
    tau: float = option(0.5, "Threshold in [0, 1) that a class activation map must reach inside a region.",
                        group=MODEL)

    dataset: str | None = option(None, "Prepared set on which it will be measured (default: coco for coco, voc2007"
                                 " for voc, the file's name for a file).", group=DATA)
    data_dir: Path = option(Path("data"), "Folder of the prepared sets.", group=DATA)
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        ImportOptions,
        argv,
        module="mcar_tf.import_run",
        description="Make a run folder of a checkpoint of the MCAR authors' PyTorch code, without PyTorch.",
    )
    rows, classes, dataset = find_classes(options.classes)
    config = FitConfig(
        dataset=options.dataset or dataset,
        data_dir=options.data_dir,
        backbone=options.backbone,
        weights="none",
        image_size=options.image_size,
        pooling=options.pooling,
        top_n=options.top_n,
        tau=options.tau,
        out_dir=options.out_dir,
    )
    if options.top_n > len(classes):
        raise ValueError(
            f"`top-n` must lie in [0, {len(classes)}], the number of classes. Received: {options.top_n}"
        )
    config.check()
    check_folder(options.out_dir)
    checkpoint = check_checkpoint(options.checkpoint, options.backbone, rows)
    print(
        f"{options.checkpoint}: {len(classes)} classes, {options.backbone}. It does not say what it was trained with:"
        f" taken for {options.image_size} px and pooling {options.pooling} (--image-size, --pooling)",
        flush=True,
    )
    load_tensorflow()
    import_checkpoint(options.checkpoint, checkpoint, config, rows, classes)
    print(f"The run lies in {options.out_dir}.")
    print(
        next_steps(
            (f"{command_on(options.out_dir, 'predict')} --images IMAGES --draw", "pictures of what it sees"),
            (command_on(options.out_dir, "evaluate"), f"its metrics on the prepared set {config.dataset}"),
            (command_on(options.out_dir, "export"), "a SavedModel and a TFLite file"),
        )
    )


def find_classes(classes: str) -> tuple[list[str], list[str], str]:
    """Class names in the checkpoint's order, the same names in the order of our sets, and the set's name.

    For COCO, the authors sort the official names. Only their demo spells them without the letter "u".
    """
    if classes == "voc":
        return list(VOC_CLASSES), list(VOC_CLASSES), "voc2007"
    if classes == "coco":
        official = list(COCO_CATEGORIES.values())
        return sorted(official), official, "coco"
    path = Path(classes)
    if not path.is_file():
        raise FileNotFoundError(f"`classes` must be voc, coco or an existing file. Received: {classes}")
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice:
        raise ValueError(
            f"{path} must hold one class name a line, each once. Received: "
            + (f"{twice!r} twice" if twice else "no names")
        )
    return names, names, path.stem


if __name__ == "__main__":
    run_command(main)

"""What looking twice costs: `python -m mcar_tf.benchmark`. Table IX of the paper on this machine, as ratios."""

import dataclasses
import importlib.util
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mcar_tf.benchmarking.timing import median_interval, time_in_turn
from mcar_tf.models.backbone_table import BACKBONES, check_backbone
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.files import write_text

if TYPE_CHECKING:
    import tensorflow as tf

    from mcar_tf.models.mcar import MCAR

PARTS = ("baseline", "total", "global", "global_to_local", "local")
CLASSES = 80  # COCO's


@dataclasses.dataclass
class BenchmarkOptions:
    """What `benchmark` can be told."""

    # fmt: off
    backbone: list[str] = option(["mobilenet_v2"], f"One or more of {', '.join(BACKBONES)}.")
    image_size: list[int] = option([256], "One or more sides in px.")
    batch_size: list[int] = option([8], "One or more numbers of images.")
    top_n: int = option(4, "Regions an image.")
    local_size: int | None = option(None, "Side of the regions' crops in px (null: image-size).")
    mode: Literal["infer", "train"] = option("infer", "infer: forward passes; train: whole training steps, and"
                                             " forward and backward of each stream.")
    rounds: int = option(15, "Rounds; in each every part runs once, in turn.")
    xla: bool = option(False, "Compile with XLA.")
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = option("float32", "Of the backbone.")
    json: Path | None = option(None, "Write the results there too.")
    export: Path | None = option(None, "An export folder: time its forms instead, in turn with the plain backbone"
                                 " exported alike. Takes --rounds and --json besides.")
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        BenchmarkOptions,
        argv,
        module="mcar_tf.benchmark",
        description="Time the plain backbone, the two-stream model and its parts in turn, on random images.",
    )
    check(options)
    load_tensorflow()
    results = time_export(options.export, options.rounds) if options.export else time_models(options)
    if options.json:
        write_text(options.json, json.dumps(results, indent=1) + "\n")


def time_models(options: BenchmarkOptions) -> list[dict[str, Any]]:
    """Table IX, printed line by line."""
    import keras

    keras.config.set_dtype_policy(options.precision)
    results = []
    print(HEADER)
    for backbone, size, batch in itertools.product(options.backbone, options.image_size, options.batch_size):
        result = benchmark(options, backbone, size, batch)
        results.append(result)
        print(table_row(result), flush=True)
    print(
        "milliseconds a batch, medians; G-to-L is selection, localization and crops; in brackets the 95 % interval"
        " of the median of the paired ratio."
    )
    return results


def time_export(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """What each exported form costs, printed line by line."""
    from mcar_tf.benchmarking import exports as benchmark_export

    results = []
    print(benchmark_export.HEADER)
    for result in benchmark_export.time_forms(folder, rounds):
        results.append(result)
        print(benchmark_export.table_row(result), flush=True)
    print(
        "over the plain backbone, exported in the same form: the median of the paired ratio and its 95 % interval."
        " Milliseconds a batch, medians; memory: what loading and asking takes, in a process of its own."
    )
    return results


def check(options: BenchmarkOptions) -> None:
    """Refuse what no model can be built of, what is no export, and options that would do nothing."""
    for name, size in itertools.product(options.backbone, options.image_size):
        check_backbone(
            name,
            image_size=size,
            local_size=options.local_size,
            spell=lambda argument: argument.replace("_", "-"),
        )
    if min(options.batch_size) < 1:
        raise ValueError(f"`batch-size` must be at least 1. Received: {min(options.batch_size)}")
    if not 1 <= options.top_n <= CLASSES:
        raise ValueError(f"`top-n` must lie in [1, {CLASSES}]. Received: {options.top_n}")
    if options.rounds < 3:
        raise ValueError(f"`rounds` must be at least 3. Received: {options.rounds}")
    if options.export:
        check_export(options.export, options)


def check_export(folder: Path, options: BenchmarkOptions) -> None:
    """Refuse what is no export folder, and options of models that are built for the purpose."""
    if not (folder / "parity.json").is_file():
        raise FileNotFoundError(
            f"{folder} is not an export folder: it holds no parity.json (python -m mcar_tf.export makes one)."
        )
    plain = BenchmarkOptions(export=folder, rounds=options.rounds, json=options.json)
    for field in dataclasses.fields(options):
        if getattr(options, field.name) != getattr(plain, field.name):
            name = field.name.replace("_", "-")
            raise ValueError(
                f"`{name}` does nothing with --export: the exported model has its own. Leave it out."
            )
    if importlib.util.find_spec("ai_edge_litert") is None and list(folder.glob("*.tflite")):
        raise ValueError("Timing TFLite files needs LiteRT: pip install 'mcar-tf[phone]'")


def benchmark(options: BenchmarkOptions, backbone: str, image_size: int, batch_size: int) -> dict[str, Any]:
    """Times of one backbone at one size: a row of Table IX."""
    import numpy as np

    times = time_in_turn(make_parts(options, backbone, image_size, batch_size), options.rounds)
    ratio = times["total"] / times["baseline"]
    share = times["global_to_local"] / times["total"]
    return {
        "backbone": backbone,
        "image_size": image_size,
        "batch_size": batch_size,
        "top_n": options.top_n,
        "local_size": options.local_size or image_size,
        "mode": options.mode,
        "precision": options.precision,
        "xla": options.xla,
        **{f"{name}_ms": float(np.median(values)) for name, values in times.items()},
        "total_over_baseline": float(np.median(ratio)),
        "total_over_baseline_interval": median_interval(ratio),
        "global_to_local_share": float(np.median(share)),
        "global_to_local_share_interval": median_interval(share),
        "rounds": options.rounds,
    }


def make_parts(
    options: BenchmarkOptions, backbone: str, image_size: int, batch_size: int
) -> dict[str, Callable[[], None]]:
    """A function for each of `PARTS` that computes it once and waits for the result."""
    import tensorflow as tf

    from mcar_tf.models.crop import crop_and_resize_portable
    from mcar_tf.models.mcar import build_mcar
    from mcar_tf.training.losses import binary_cross_entropy
    from mcar_tf.training.optimizers import TwoRateSGD

    def build(top_n: int) -> "MCAR":
        model = build_mcar(
            CLASSES, backbone, image_size, top_n=top_n, weights=None, local_size=options.local_size
        )
        model.compile(TwoRateSGD(0.0), binary_cross_entropy, jit_compile=options.xla)
        model.optimizer.build(model.trainable_variables)
        if options.xla:
            model.crop = crop_and_resize_portable
        return model

    model, plain = build(options.top_n), build(0)
    training = options.mode == "train"
    images = tf.random.stateless_uniform((batch_size, image_size, image_size, 3), seed=(0, 0), maxval=255.0)
    labels = tf.cast(tf.random.stateless_uniform((batch_size, CLASSES), seed=(0, 1)) < 0.04, tf.float32)
    batch = {"image": images, "labels": labels, "weights": tf.ones_like(labels)}
    features, logits = model.global_pass(images, training=False)
    boxes = model.find_boxes(features, model.select_classes(logits), images)

    def gradient_of(loss: Callable[[], "tf.Tensor"]) -> list["tf.Tensor"]:
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, model.trainable_variables)

    def global_loss() -> "tf.Tensor":
        return binary_cross_entropy(labels, model.global_pass(images, training=True)[1], batch["weights"])

    def local_loss() -> "tf.Tensor":
        logits = tf.reduce_max(model.local_pass(images, boxes, training=True), axis=1)
        return binary_cross_entropy(labels, logits, batch["weights"])

    def global_to_local() -> "tf.Tensor":
        found = model.find_boxes(features, model.select_classes(logits), images)
        return model.crop(images, found, model.local_size)

    crops = global_to_local()

    def local_forward() -> "tf.Tensor":
        keep, model.crop = model.crop, lambda *_: crops  # crops are the part before
        try:
            return model.local_pass(images, boxes, training=False)
        finally:
            model.crop = keep

    parts = {
        "baseline": (lambda: plain.train_step(batch)) if training else (lambda: plain(images)),
        "total": (lambda: model.train_step(batch)) if training else (lambda: model(images)),
        "global": (lambda: gradient_of(global_loss))
        if training
        else (lambda: model.global_pass(images, False)),
        "global_to_local": global_to_local,
        "local": (lambda: gradient_of(local_loss)) if training else local_forward,
    }

    def waiting(function: Callable[[], Any]) -> Callable[[], None]:
        compiled = tf.function(function, jit_compile=options.xla, autograph=False)

        def run() -> None:
            compiled()
            # On a GPU outputs are promises, and one that has come says nothing of the others.
            tf.test.experimental.sync_devices()

        return run

    return {name: waiting(function) for name, function in parts.items()}


HEADER = (
    f"{'backbone':14}{'size':>5}{'batch':>6}{'baseline':>10}{'total':>10}{'global':>10}{'G-to-L':>9}{'local':>10}"
    f"{'total / baseline':>22}{'G-to-L / total':>23}"
)


def table_row(result: dict[str, Any]) -> str:
    """A result as a line under `HEADER`."""
    low, high = result["total_over_baseline_interval"]
    share_low, share_high = (100 * value for value in result["global_to_local_share_interval"])
    times = zip(PARTS, (10, 10, 10, 9, 10), strict=True)
    return (
        f"{result['backbone']:14}{result['image_size']:5}{result['batch_size']:6}"
        + "".join(f"{result[f'{part}_ms']:{width}.1f}" for part, width in times)
        + f"{result['total_over_baseline']:8.2f} [{low:.2f}, {high:.2f}]"
        + f"{100 * result['global_to_local_share']:8.1f} % [{share_low:.1f}, {share_high:.1f}]"
    )


if __name__ == "__main__":
    run_command(main)

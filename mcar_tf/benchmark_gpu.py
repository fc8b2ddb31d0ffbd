"""How fast this card trains and answers: `python -m mcar_tf.benchmark_gpu`. In several ways, beside PyTorch."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcar_tf.benchmarking import gpu_report
from mcar_tf.models.backbone_table import check_backbone
from pipelines.command import option, parse_options, run_command
from pipelines.files import write_text
from pipelines.words import spell

SETTINGS = ["mobilenet_v2:256:64", "mobilenet_v2:256:16", "torch_resnet101:448:16"]
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


@dataclasses.dataclass
class BenchmarkOptions:
    """The options of `benchmark_gpu`."""

    # fmt: off
    out_dir: Path = option(Path("gpu-report"), "Folder for report.md and report.json, which are written after each"
                           " measurement.")
    settings: list[str] = option(SETTINGS, "What to measure: backbone:image-size:batch-size.")
    precision: list[str] = option(["mixed_float16", "float32"], f"One or more of {', '.join(PRECISIONS)}.")
    variants: list[str] = option(list(gpu_report.VARIANTS), f"One or more of {', '.join(gpu_report.VARIANTS)}.")
    top_n: int = option(4, "Regions looked at per image.")
    rounds: int = option(12, "How often each is measured.")
    torch_python: str = option(sys.executable, "Python interpreter that has torch and torchvision; by default this"
                               " one.")
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        BenchmarkOptions,
        argv,
        module="mcar_tf.benchmark_gpu",
        description="Time training steps and inferences on this machine's card, or its CPU, in several ways and in"
        " PyTorch, each in a process of its own.",
    )
    settings = check(options)
    planned = gpu_report.plan(
        settings, options.precision, options.variants, top_n=options.top_n, rounds=options.rounds
    )
    print(f"{len(planned)} measurements, a minute or two each, to {options.out_dir}")
    options.out_dir.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for result in gpu_report.measure_all(planned, options.torch_python):
        results.append(result)
        print(line(result), flush=True)
        write_text(options.out_dir / "report.json", json.dumps(results, indent=1) + "\n")
        write_text(options.out_dir / "report.md", gpu_report.report(results))


def check(options: BenchmarkOptions) -> list[dict[str, Any]]:
    """The settings, taken apart. Refuses what can't be measured."""
    for name, allowed in (("precision", PRECISIONS), ("variants", gpu_report.VARIANTS)):
        for value in getattr(options, name):
            if value not in allowed:
                raise ValueError(f"`{name}` must be of {', '.join(allowed)}. Received: {value!r}")
    for name, least in (("rounds", 3), ("top_n", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"`{spell(name)}` must be at least {least}. Received: {getattr(options, name)}")
    settings = []
    for text in options.settings:
        backbone, *numbers = text.split(":")
        if len(numbers) != 2 or not all(number.isdigit() for number in numbers) or numbers[1] == "0":
            raise ValueError(
                f"`settings` must be backbone:image-size:batch-size, such as {SETTINGS[0]}. Received: {text!r}"
            )
        image_size, batch_size = map(int, numbers)
        check_backbone(backbone, image_size=image_size, spell=spell)
        settings.append({"backbone": backbone, "image_size": image_size, "batch_size": batch_size})
    return settings


def line(result: dict[str, Any]) -> str:
    """A result, as it comes."""
    what = " ".join(map(str, [*gpu_report.setting_of(result), result["variant"]]))
    if "error" in result:
        return f"{what}: {result['error']}"
    train, plain_train, infer, plain_infer = (result[name] for name in gpu_report.TIMES)
    return (
        f"{what}: training {train:.1f} ms (plain {plain_train:.1f}), inference {infer:.1f} ms"
        f" (plain {plain_infer:.1f}), first step {result['first_step_s']:.1f} s"
    )


if __name__ == "__main__":
    run_command(main)

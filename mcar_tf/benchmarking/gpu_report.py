"""Measures training and inference on a card in many ways, beside PyTorch: measurements in, a table out.

Every measurement is a process of its own, one after the other on the same card. Loads no TensorFlow itself.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.command import PERSISTENT

PEER = "pytorch"
# Ways to compute the same step -> what differs from what `fit` does.
VARIANTS = {
    "default": "op by op, as `fit` trains short runs",
    PEER: "the same method in PyTorch: eager, channels last, autocast",
    "xla": "the whole step compiled with XLA, as `fit` trains long runs",
    "xla_backbone": "in training, the backbone alone compiled with XLA",
    "transposed": f"without cuDNN's persistent BatchNorm ({PERSISTENT}=0), so in half precision with transposes",
    "no_layout": "without TensorFlow's choice between channels first and last",
}
TIMES = ("mcar_train_ms", "plain_train_ms", "mcar_infer_ms", "plain_infer_ms")
SECONDS_PER_MEASUREMENT = 600


def plan(
    settings: Sequence[Mapping[str, Any]],
    precisions: Sequence[str],
    variants: Sequence[str],
    *,
    top_n: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """What to measure, in this order: each precision's most telling ways first, so that a run cut short has them."""
    common = {"top_n": top_n, "rounds": rounds}
    return [
        {"variant": variant, **setting, "precision": precision, **common}
        for precision in precisions
        for variant in variants
        for setting in settings
    ]


def measure_all(measurements: Sequence[Mapping[str, Any]], torch_python: str) -> Iterator[dict[str, Any]]:
    """Measure one after the other; each yields what was measured and the result, or `error` in one line.

    Args:
        measurements: from `plan`.
        torch_python: the Python interpreter that has torch and torchvision.
    """
    for measurement in measurements:
        yield {**measurement, **run(measurement, torch_python)}


def run(measurement: Mapping[str, Any], torch_python: str) -> dict[str, Any]:
    """The result of one measurement, from a process of its own."""
    here = Path(__file__)
    environment = dict(os.environ)
    if measurement["variant"] == PEER:
        asked = {name: value for name, value in measurement.items() if name != "variant"}
        command = [torch_python, str(here.with_name("torch_peer.py")), json.dumps(asked)]
        if torch_python != sys.executable:  # these would lead it to this environment's libraries
            for name in ("PYTHONPATH", "LD_LIBRARY_PATH"):
                environment.pop(name, None)
    else:
        module = "mcar_tf.benchmarking.one_measurement"
        command = [sys.executable, "-m", module, json.dumps(dict(measurement))]
        places = [str(here.parents[2]), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(place for place in places if place)
        environment |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment[PERSISTENT] = "0" if measurement["variant"] == "transposed" else "1"
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_PER_MEASUREMENT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {SECONDS_PER_MEASUREMENT} s"}
    except OSError as error:
        return {"error": str(error)}
    if done.returncode:
        return {"error": reason(done.stderr, done.returncode)}
    return json.loads(done.stdout.splitlines()[-1])


def reason(stderr: str, code: int) -> str:
    """The line of a traceback that says what went wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0]]
    return (errors or lines or [f"exit code {code}"])[-1][:200]


def setting_of(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """What is compared only with itself: network, size, batch and precision."""
    return tuple(result[name] for name in ("backbone", "image_size", "batch_size", "precision"))


def report(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as a page of Markdown."""
    devices = sorted({result["device"] for result in results if "device" in result})
    versions = {k: v for result in results for k, v in result.get("versions", {}).items()}
    peers = {setting_of(r): r for r in results if r["variant"] == PEER and "error" not in r}
    regions = ", ".join(sorted({str(result["top_n"]) for result in results}))
    lines = [
        "# Training and inference, in milliseconds a batch",
        "",
        f"Device: {' and '.join(devices) or '-'}. {', '.join(f'{k} {v}' for k, v in sorted(versions.items()))}.",
        f"MCAR with {regions} regions and its plain backbone, 80 classes, random images on the device; medians.",
        "",
        "| network | size | batch | precision | variant | training: MCAR | plain | inference: MCAR | plain"
        " | MCAR over PyTorch: training | inference | first step | peak memory |",
        "|---" * 13 + "|",
        *(_row(result, peers.get(setting_of(result))) for result in results),
        "",
        "| variant | what it is |",
        "|---|---|",
        *(f"| {name} | {what} |" for name, what in VARIANTS.items()),
        "",
    ]
    return "\n".join(lines)


def _row(result: Mapping[str, Any], peer: Mapping[str, Any] | None) -> str:
    cells = [result[name] for name in ("backbone", "image_size", "batch_size", "precision", "variant")]
    if "error" in result:
        return "| " + " | ".join(map(str, [*cells, result["error"].replace("|", "/"), *[""] * 7])) + " |"
    cells += [f"{result[name]:.1f}" for name in TIMES]
    cells += [f"{result[name] / peer[name]:.2f}" if peer else "-" for name in TIMES[::2]]
    cells.append(f"{result['first_step_s']:.1f} s")
    cells.append(f"{result['peak_mib'] / 1024:.1f} GiB" if "peak_mib" in result else "-")
    return "| " + " | ".join(map(str, cells)) + " |"

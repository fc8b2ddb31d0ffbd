"""Measure the memory that loading and calling a model file takes. Run it as a fresh process for each file.

    python -m mcar_tf.benchmarking.peak_memory exported/x/mcar-float32.tflite mcar 2
    python -m mcar_tf.benchmarking.peak_memory exported/x/saved_model/1 serve_tensor 0

Prints MiB: the process's peak, less what it held after importing the runtime and before loading the file.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

RUNS = 3
STATUS = Path("/proc/self/status")  # only Linux has it


def main() -> None:
    path, signature, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    load = load_saved_model if path.is_dir() else load_tflite
    before, ask = load(path, signature, threads)
    for _ in range(RUNS):
        ask()
    print(max(0, memory("VmHWM") - before))


def load_tflite(path: Path, signature: str, threads: int) -> tuple[float, Callable[[], object]]:
    """MiB held before the file is loaded, and a function that calls the model."""
    from ai_edge_litert.interpreter import Interpreter

    before = memory("VmRSS")
    runner = Interpreter(str(path), num_threads=threads).get_signature_runner(signature)
    image = runner.get_input_details()["image"]
    zeros = np.zeros(image["shape"], image["dtype"])
    return before, lambda: runner(image=zeros)


def load_saved_model(path: Path, signature: str, threads: int) -> tuple[float, Callable[[], object]]:
    """The same for a SavedModel, called with one picture of 256 x 256 px. TensorFlow chooses its own threads."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices(
        "GPU"
    ):  # the process that started this one has memory there too
        tf.config.experimental.set_memory_growth(gpu, True)
    # Run one op first: the memory that TensorFlow takes for itself then does not count as the model's.
    pixels = tf.zeros((1, 256, 256, 3), tf.uint8)
    inputs = {"images": pixels, "encoded": tf.io.encode_jpeg(pixels[0])[tf.newaxis]}
    before = memory("VmRSS")
    ask = tf.saved_model.load(str(path)).signatures[signature]
    (name,) = ask.structured_input_signature[1]
    return before, lambda: ask(**{name: inputs[name]})


def memory(line: str) -> float:
    """MiB that this process holds now (`VmRSS`) or held at its peak (`VmHWM`), as reported by Linux.

    `getrusage` would report the peak of the process that started this one, if that was larger.
    """
    status = dict(row.split(":", 1) for row in STATUS.read_text().splitlines())
    return int(status[line].split()[0]) / 1024


if __name__ == "__main__":
    main()

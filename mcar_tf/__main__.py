"""The script `mcar`, which starts every command by its name; `python -m mcar_tf` does the same."""

import importlib
import sys
from collections.abc import Sequence

import mcar_tf
from pipelines.command import run_command
from pipelines.words import nearest

# Title -> command -> its module, and what it does.
COMMANDS = {
    "Your pictures": {
        "build": ("pipelines.build", "Turn pictures and their labels into a prepared set."),
        "beam": ("pipelines.beam", "The same on a cluster, for sets that outgrow one machine."),
        "audit": ("mcar_tf.audit", "Find labels of a set that are likely to be wrong or missing."),
    },
    "A model": {
        "fit": ("mcar_tf.fit", "Train a model on a prepared set."),
        "import_run": ("mcar_tf.import_run", "Turn a checkpoint of the authors' PyTorch code into a run."),
        "predict": ("mcar_tf.predict", "Tell what is in pictures, and where."),
        "sweep": ("mcar_tf.sweep", "Train or evaluate with several values of some options."),
    },
    "How good it is": {
        "evaluate": ("mcar_tf.evaluate", "Measure a run on labelled pictures."),
        "calibrate": ("mcar_tf.calibrate", "Choose the probability at which each class is predicted."),
        "report": ("mcar_tf.report", "Make a page of curves, errors and regions from an evaluated run."),
        "compare": ("mcar_tf.compare", "Tell whether one run is better than another by more than chance."),
        "tradeoff": ("mcar_tf.tradeoff", "Weigh accuracy against time for each way to use a run."),
    },
    "Putting it to work": {
        "export": ("mcar_tf.export", "Write the model for servers, phones and browsers."),
        "serve": ("mcar_tf.serve", "Answer requests over HTTP with an exported model."),
        "predict_beam": (
            "mcar_tf.predict_beam",
            "Predict on a cluster, for more pictures than one machine can.",
        ),
    },
    "Speed": {
        "benchmark": ("mcar_tf.benchmark", "Time a look, a second look and a training step on this machine."),
        "benchmark_gpu": ("mcar_tf.benchmark_gpu", "Find out what makes training and answers fast on a GPU."),
        "benchmark_metrics": ("mcar_tf.benchmark_metrics", "Time the exact metrics."),
        "benchmark_pipeline": ("pipelines.benchmark", "Time reading pictures from a prepared set."),
    },
}


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run one of the commands, or list them all. Returns what the command does: its exit code, if it has one."""
    command, *options = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help", "help"):
        print(list_commands())
    elif command in ("--version", "version"):
        print(mcar_tf.__version__)
    else:
        return importlib.import_module(find_module(command)).main(options)
    return None


def find_module(command: str) -> str:
    """The module of a command.

    Raises:
        ValueError: the command is unknown; the error names the nearest one.
    """
    modules = {name: module for commands in COMMANDS.values() for name, (module, _) in commands.items()}
    known = command.replace("-", "_")
    if known not in modules:
        raise ValueError(f"unknown command: `{command}`.{nearest(command, modules)} `mcar --help` lists all.")
    return modules[known]


def list_commands() -> str:
    """The commands with a line each."""
    lines = ["usage: mcar COMMAND [options]"]
    for title, commands in COMMANDS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:20}{what}" for name, (_, what) in commands.items()]
    lines += ["", "`mcar COMMAND --help` lists the options of a command. Each is also a Python module:"]
    lines += ["`python -m mcar_tf.fit` is `mcar fit`, `python -m pipelines.build` is `mcar build`."]
    return "\n".join(lines)


def start() -> None:
    """What the installed script `mcar` calls."""
    run_command(main)


if __name__ == "__main__":
    start()

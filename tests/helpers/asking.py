"""Runs commands on one run folder, one after the other, in a process that a hang or a crash may end.

That process has loaded TensorFlow and built the run's model once: a question costs a second in place of ten.
"""

import contextlib
import functools
import io
import math
import multiprocessing
import os
import re
import resource
import shutil
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

COMMANDS = ("predict", "evaluate", "calibrate", "report", "compare")
SECONDS = 60  # of computing, after which a command counts as hanging
Answer = tuple[int, str, Any]


class Asker:
    """`ask` of a folder that holds `run`, its set in `data`, and `photo.png`.

    Args:
        whole: the folder.
        seconds: of computing that a command may take.
    """

    def __init__(self, whole: Path, seconds: float = SECONDS) -> None:
        self.whole, self.seconds = whole, seconds
        self.process: Any = None
        self.line: Any = None

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def ask(self, command: str) -> Answer:
        """A command's exit code, what it said of an error, and its answer; the signal, below 0, that ended it."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.line, theirs = context.Pipe()
            self.process = context.Process(target=answer_all, args=(theirs, self.whole, self.seconds))
            self.process.start()
            theirs.close()
            self.line.recv()
        self.line.send(command)
        try:
            if self.line.poll(20 * self.seconds):  # for what waits without computing
                return self.line.recv()
        except EOFError:
            pass
        return self._end(), "it hangs or died", None

    def _end(self) -> int:
        if self.process is None:
            return 0
        self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code, self.process = self.process.exitcode, None
        return code


def answer_all(line: Connection, whole: Path, seconds: float) -> None:
    """Answer questions until the other end is closed."""
    from mcar_tf import calibrate, compare, evaluate, predict, report
    from mcar_tf.runs import loading

    mains = {m.__name__.rpartition(".")[2]: m.main for m in (predict, evaluate, calibrate, report, compare)}
    mains |= {"hang": lambda words: [None for _ in iter(int, 1)], "die": lambda words: os.abort()}
    loading.build_mcar = keeping_the_first(loading.build_mcar)
    line.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            command = line.recv()
            # The kernel ends what computes for longer, in whatever language it does.
            most = math.ceil(time.process_time() + seconds)
            resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
            line.send(answer(command, mains[command], whole))


def keeping_the_first(build: Any) -> Any:
    """`build` that keeps its first model for the same arguments, emptied of weights, so that they must be loaded."""
    import numpy as np

    kept: dict[str, Any] = {}

    @functools.wraps(build)
    def build_or_keep(*words: Any, **options: Any) -> Any:
        arguments = repr((words, options))
        model = kept.get(arguments) or build(*words, **options)
        if not kept:
            kept[arguments] = model
        for weight in model.weights:
            if weight.value.dtype.is_floating:
                weight.assign(np.full(weight.shape, np.nan, np.float32))
        return model

    return build_or_keep


def answer(command: str, main: Any, whole: Path) -> Answer:
    """Run a command as a process would."""
    from pipelines.command import describe_error

    run, out = str(whole / "run"), whole / "out"
    shutil.rmtree(out, ignore_errors=True)
    words = {
        "predict": ["--run", run, "--images", str(whole / "photo.png"), "--out-dir", str(out)],
        "evaluate": ["--run", run, "--out-dir", str(out)],
        "calibrate": ["--run", run],
        "report": ["--run", run, "--out", str(out / "report.html")],
        "compare": ["--runs", run, "--to", run, "--resamples", "100"],
    }.get(command, [])
    if command == "report":
        out.mkdir()
    before = (whole / "run" / "thresholds.json").read_bytes() if command == "calibrate" else b""
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        code: Any = 0
        try:
            main(words)
        except SystemExit as error:
            code = error.code
        except Exception as error:
            code, text = describe_error(error)
            said.write(text)
    found: Any = {path.name: path.read_bytes() for path in sorted(out.glob("*"))}
    if command == "calibrate":
        found = (whole / "run" / "thresholds.json").read_bytes()
        (whole / "run" / "thresholds.json").write_bytes(before)
    lines = [
        text for text in re.split(r"[\r\n]+", said.getvalue()) if "images/s]" not in text and text.strip()
    ]
    return code, "\n".join(lines), printed.getvalue() if command == "compare" else found

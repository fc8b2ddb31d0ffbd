"""Run a function in a process of its own, to measure what it alone takes: function and arguments in, result out."""

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from pipelines.building.processes import end_with_parent

P = ParamSpec("P")
Result = TypeVar("Result")


def run_alone(function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """The function's result; if a signal ends the wait for it, or our process is killed, the other ends too."""
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as executor:
        try:
            return executor.submit(function, *args, **kwargs).result()
        except BaseException:  # otherwise leaving the `with` block would wait for the process
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            raise


def peak_memory() -> float:
    """This process's peak of resident memory so far, in MB.

    Not the one that `getrusage` gives, which includes the process that ours was forked from.
    """
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) / 1000

"""MCAR: multi-label image recognition that looks twice, in Keras 3 on TensorFlow.

`mcar_tf.load_run("runs/x").predict("photo.jpg")`, `mcar_tf.build_mcar(...)` and `mcar_tf.metrics` are loaded when
they are first used, so that `import mcar_tf` loads no TensorFlow.
"""

import importlib
from pathlib import Path
from typing import Any

import pipelines

__version__ = "0.2.0"
__all__ = ["build_mcar", "load_run", "metrics"]  # `__getattr__` finds them

if Path(next(iter(pipelines.__path__))).resolve().parent != Path(__file__).resolve().parent.parent:
    raise ImportError(
        f"mcar_tf needs its own package `pipelines`, and Python found another one: {pipelines.__path__[0]}. Start"
        " from another folder, or rename that one; the command `mcar` does not look into the current folder."
    )

_NEEDS_TENSORFLOW = {"load_run": "mcar_tf.runs.python", "build_mcar": "mcar_tf.models.mcar"}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("mcar_tf.metrics")
    if name not in _NEEDS_TENSORFLOW:
        near = importlib.import_module("pipelines.words").nearest(name, __all__)
        raise AttributeError(f"module 'mcar_tf' has no attribute {name!r}.{near}")
    importlib.import_module("pipelines.command").load_tensorflow()
    value = getattr(importlib.import_module(_NEEDS_TENSORFLOW[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The table of export forms: names, modules that write and load them, accuracy limits. Loads no TensorFlow.

To add a form, write a module with the two functions of `FormModule` and add a line to `FORMS`.
"""

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy.typing as npt

from pipelines.words import nearest

if TYPE_CHECKING:
    from mcar_tf.models.mcar import MCAR


Array = npt.NDArray[Any]
# `image` (B, S, S, 3) float32 in [0, 255]; `encoded` (B,), the files that these were decoded from; and, if labels are
# known, `labels` and `weights` (B, C)
PictureBatch = dict[str, Array]
Answer = Callable[[PictureBatch], dict[str, Array]]
# Among a form's outputs: the `global_probs` of its signature `global_only`, which is a separate graph.
GLOBAL_ONLY = "global_only"
# The `probs` of the signature `look_at` for the first region that `global_only` gives, `LOOKED_AT` (B, 1, 4).
LOOK_AT, LOOKED_AT = "look_at", "looked_at"


@dataclasses.dataclass(frozen=True)
class Material:
    """What a form is made from.

    Attributes:
        model: the model, with trained weights.
        classes: C names, in the order of the model's outputs.
        thresholds: C probabilities from which on a class counts as present, or None if there are none.
        temperature: T for which sigmoid(logit / T) is the frequency of a class; 1 if it is not known.
        card: text about the model.
        tflite_input: type of the pixels that a TFLite file takes, "float32" or "uint8".
        calibration: gives the (S, S, 3) pictures on which a form finds its ranges; None if no form needs them.
        name: name of the run, shown on the page.
        litert: a folder with LiteRT.js, to be copied beside the page; None: the page loads it from a CDN.
    """

    model: "MCAR"
    classes: Sequence[str]
    thresholds: Sequence[float] | None = None
    temperature: float = 1.0
    card: str = ""
    tflite_input: str = "float32"
    calibration: Callable[[], Iterable[Array]] | None = None
    name: str = "mcar"
    litert: Path | None = None


@dataclasses.dataclass(frozen=True)
class LoadedForm:
    """An exported form that is loaded and can be called.

    Attributes:
        answer: a batch -> outputs of `MCAR.call`, without boxes if N = 0; and `GLOBAL_ONLY`, `LOOK_AT` and
            `LOOKED_AT` if the form has these.
        whole_levels: whether the form takes bytes; it is then compared with the model on pixels rounded to integers.
        answer_pixels: a second input of the form, for pixels rounded to integers; None if it has none.
    """

    answer: Answer
    whole_levels: bool = False
    answer_pixels: Answer | None = None


class FormModule(Protocol):
    """The two functions of a form's module."""

    def write_form(self, material: Material, path: Path, precision: str | None) -> None:
        """Write the form to `path`, a file or folder that does not exist yet."""

    def load_form(self, path: Path) -> LoadedForm:
        """Load the form, to compare it with its model."""


@dataclasses.dataclass(frozen=True)
class Bar:
    """The largest differences from the model that a form may have; None: not limited, only reported."""

    global_difference: float | None = None
    local_difference: float | None = None
    mean_ap_loss: float | None = None


@dataclasses.dataclass(frozen=True)
class Form:
    """One line of the table.

    Attributes:
        format: the value of `--formats` that asks for it.
        path: its path in the export folder.
        module: full name of its `FormModule`.
        bar: how far it may be from the model.
        precision: the value of `--precision` that asks for it; None: the format has no choice of precision.
        calibrated: whether it needs pictures to find its ranges.
        needs: modules that must be installed to write and load it.
        extra: the extra of this package that installs these modules.
    """

    format: str
    path: str
    module: str
    bar: Bar
    precision: str | None = None
    calibrated: bool = False
    needs: tuple[str, ...] = ()
    extra: str | None = None

    @property
    def name(self) -> str:
        """Its name in tables and in `parity.json`: the first part of its path."""
        return self.path.split("/")[0]

    def load_module(self) -> FormModule:
        """Import the module that writes and loads it, which may import TensorFlow."""
        return cast(FormModule, importlib.import_module(self.module))

    def check_installed(self) -> None:
        """Raise an error if the package that the form needs is missing.

        Raises:
            ValueError: it is missing; the message names the extra to install.
        """
        for module in self.needs:
            if importlib.util.find_spec(module) is None:
                raise ValueError(
                    f"{self.name} needs {module.replace('_', '-')}: pip install 'mcar-tf[{self.extra}]'"
                )


_SAVED_MODEL, _TFLITE = "mcar_tf.exporting.saved_model", "mcar_tf.exporting.tflite"
_EXACT = Bar(global_difference=1e-4, local_difference=1e-4)

# fmt: off
FORMS = (
    Form("saved_model", "saved_model/1", _SAVED_MODEL, _EXACT),
    Form("tflite", "mcar-float32.tflite", _TFLITE, _EXACT, "float32"),
    Form("tflite", "mcar-float16.tflite", _TFLITE, Bar(mean_ap_loss=0.005), "float16"),
    Form("tflite", "mcar-dynamic.tflite", _TFLITE, Bar(mean_ap_loss=0.01), "dynamic"),
    Form("tflite", "mcar-int8.tflite", _TFLITE, Bar(mean_ap_loss=0.01), "int8",
         calibrated=True, needs=("litert_quantizer",), extra="phone"),
    Form("web", "web", "mcar_tf.exporting.web", _EXACT),
    Form("onnx", "mcar.onnx", "mcar_tf.exporting.onnx_file", _EXACT, needs=("tf2onnx", "onnxruntime"), extra="onnx"),
)
# fmt: on

FORMATS = tuple(dict.fromkeys(form.format for form in FORMS))
PRECISIONS = tuple(dict.fromkeys(form.precision for form in FORMS if form.precision))


def choose_forms(formats: Sequence[str], precisions: Sequence[str]) -> list[Form]:
    """The requested lines of the table, in the order of the table.

    Raises:
        ValueError: the table does not have a format or precision.
    """
    for name, asked, valid in (("formats", formats, FORMATS), ("precision", precisions, PRECISIONS)):
        for value in asked:
            if value not in valid:
                raise ValueError(
                    f"`{name}` must be among {', '.join(valid)}. Received: {value!r}.{nearest(value, valid)}"
                )
    return [
        form
        for form in FORMS
        if form.format in formats and (form.precision is None or form.precision in precisions)
    ]


def find_form(name: str) -> Form:
    """The line of the table with this name."""
    return next(form for form in FORMS if form.name == name)

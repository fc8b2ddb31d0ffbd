"""The table of export forms: what each is called, what writes and loads it, what it is held to. Loads no TensorFlow.

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
# `image` (B, S, S, 3) float32 in [0, 255]; `encoded` (B,), the files that these are of; and, where labels are known,
# `labels` and `weights` (B, C)
PictureBatch = dict[str, Array]
Answer = Callable[[PictureBatch], dict[str, Array]]
# Among a form's outputs: `global_probs` by its signature of that name, which is a graph of its own.
GLOBAL_ONLY = "global_only"
# `probs` by the signature of that name, at the first region that `global_only` points at, `LOOKED_AT` (B, 1, 4).
LOOK_AT, LOOKED_AT = "look_at", "looked_at"


@dataclasses.dataclass(frozen=True)
class Material:
    """What a form is made from.

    Attributes:
        model: with trained weights.
        classes: C names, in the order of the model's outputs.
        thresholds: C probabilities from which on a class counts as present, or None where there are none.
        temperature: T for which sigmoid(logit / T) is the frequency of a class; 1 where it is not known.
        card: text about the model.
        tflite_input: type of the pixels that a TFLite file takes, "float32" or "uint8".
        calibration: gives the (S, S, 3) pictures on which a form finds its ranges; None where no form needs them.
        name: of the run, for the page.
        litert: a folder that holds LiteRT.js, for a page that asks no other host for it.
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
    """An exported form that can be asked.

    Attributes:
        answer: a batch -> outputs of `MCAR.call`, without boxes where N = 0; and `GLOBAL_ONLY`,
            `LOOK_AT` and `LOOKED_AT` where it has these.
        whole_levels: it takes bytes, so it is held to the model on pictures of whole levels of brightness.
        answer_pixels: another way in, for pictures of whole levels of brightness.
    """

    answer: Answer
    whole_levels: bool = False
    answer_pixels: Answer | None = None


class FormModule(Protocol):
    """What a form's module offers."""

    def write_form(self, material: Material, path: Path, precision: str | None) -> None:
        """Write the form to `path`, a file or a folder that is not there yet."""

    def load_form(self, path: Path) -> LoadedForm:
        """Load the form, to compare it with its model."""


@dataclasses.dataclass(frozen=True)
class Bar:
    """The largest difference from its model that a form may have; None: not limited, only reported."""

    global_difference: float | None = None
    local_difference: float | None = None
    mean_ap_loss: float | None = None


@dataclasses.dataclass(frozen=True)
class Form:
    """One line of the table.

    Attributes:
        format: the value of `--formats` that asks for it.
        path: where it lies in the export folder.
        module: its `FormModule`, by its full name.
        bar: what it is held to.
        precision: the value of `--precision` that asks for it; None: the format has no choice of precision.
        calibrated: whether it needs pictures to find its ranges.
        needs: the module that must be installed to write it, or None.
        extra: the extra of this package that installs that module.
    """

    format: str
    path: str
    module: str
    bar: Bar
    precision: str | None = None
    calibrated: bool = False
    needs: str | None = None
    extra: str | None = None

    @property
    def name(self) -> str:
        """What it is called in tables and in `parity.json`: the first part of its path."""
        return self.path.split("/")[0]

    def load_module(self) -> FormModule:
        """The module that writes and loads it; this may import TensorFlow."""
        return cast(FormModule, importlib.import_module(self.module))

    def check_installed(self) -> None:
        """Refuse a form whose package is missing.

        Raises:
            ValueError: naming the extra to install.
        """
        if self.needs and importlib.util.find_spec(self.needs) is None:
            raise ValueError(
                f"{self.name} needs {self.needs.replace('_', '-')}: pip install 'mcar-tf[{self.extra}]'"
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
         calibrated=True, needs="ai_edge_quantizer", extra="phone"),
    Form("web", "web", "mcar_tf.exporting.web", _EXACT),
)
# fmt: on

FORMATS = tuple(dict.fromkeys(form.format for form in FORMS))
PRECISIONS = tuple(dict.fromkeys(form.precision for form in FORMS if form.precision))


def choose_forms(formats: Sequence[str], precisions: Sequence[str]) -> list[Form]:
    """The lines of the table that are asked for, in the order of the table.

    Raises:
        ValueError: a format or precision that the table does not have.
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

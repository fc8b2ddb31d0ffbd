"""Loads a run folder: the model with its weights, the classes and the config. Every command but `fit` starts here."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import keras
import numpy as np
import numpy.typing as npt
from PIL import Image

from mcar_tf.config import FitConfig, change_without_training
from mcar_tf.evaluating.answers import Answer
from mcar_tf.evaluating.photos import as_source, predict_files
from mcar_tf.models.batch_norm import copy_backbone
from mcar_tf.models.mcar import MCAR, build_mcar
from mcar_tf.runs.folder import CONFIG, check_same_pictures, read_classes, read_run_config
from mcar_tf.runs.thresholds import Thresholds, find_thresholds
from mcar_tf.runs.weights import load_weights
from pipelines.manifest import Manifest

Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]


@dataclasses.dataclass
class Run:
    """A trained model and what belongs to it.

    Attributes:
        path: the run folder.
        config: the options it was trained with, plus the overrides it was loaded with.
        classes: C class names, in the order of the model's outputs.
        model: the model with the run's weights.
        weights_file: the file that the weights were loaded from.
        selection: which classes' maps become regions.
    """

    path: Path
    config: FitConfig
    classes: tuple[str, ...]
    model: MCAR
    weights_file: Path
    selection: str

    @functools.cached_property
    def decision(self) -> Thresholds:
        """The probability at which each class is predicted, and where it comes from."""
        return find_thresholds(self.path, self.config, self.classes, self.weights_file, self.selection)

    @property
    def thresholds(self) -> list[float] | None:
        """The decision thresholds that `calibrate` chose for exactly this model, one per class, or None."""
        return list(self.decision.values) if self.decision.calibrated else None

    @property
    def calibration(self) -> Mapping[str, Any] | None:
        """What `calibrate` found for exactly this model, or None."""
        return self.decision.calibration

    @overload
    def predict(self, pictures: Picture, *, all_classes: bool = False) -> Answer: ...

    @overload
    def predict(
        self, pictures: list[Any] | tuple[Any, ...], *, all_classes: bool = False
    ) -> list[Answer]: ...

    def predict(
        self, pictures: Picture | list[Any] | tuple[Any, ...], *, all_classes: bool = False
    ) -> Answer | list[Answer]:
        """What is in pictures: the answer for one, or a list of them for several, as the command `predict` writes.

        Args:
            pictures: one or several: paths, images of Pillow's, or arrays (H, W), (H, W, 3) or (H, W, 4) uint8.
            all_classes: list every class, and whether it is `present`.

        Returns:
            `image`, its path; `labels`, the classes that reach their threshold, each with its `class`, `prob`,
            `global_prob` and `local_prob`, the most probable first; `regions`, where the model looked: `class`,
            `prob`, and `box`, ymin xmin ymax xmax as fractions of the picture. One of several pictures that does not
            exist or can't be read has an `error`, and no labels.

        Raises:
            FileNotFoundError: the only picture does not exist.
            ValueError: the only picture can't be read, or something is no picture.
        """
        single = isinstance(pictures, str | os.PathLike | Image.Image | np.ndarray)
        if not single and not isinstance(pictures, Iterable):
            raise ValueError(
                "`pictures` must be a path, an image of Pillow's, an array of NumPy's, or a list of these. Received:"
                f" {pictures!r:.60}"
            )
        if isinstance(pictures, str | os.PathLike) and not Path(pictures).is_file():
            raise FileNotFoundError(f"There is no image {pictures}.")
        several: Any = [pictures] if single else pictures
        answers = list(
            predict_files(
                self.model,
                [as_source(picture, f"picture {i}") for i, picture in enumerate(several, 1)],
                self.classes,
                [],
                image_size=self.config.image_size,
                threshold=self.decision.values,
                all_classes=all_classes,
            )
        )
        if not single:
            return answers
        if "error" in answers[0]:
            raise ValueError(f"{answers[0]['image']} {answers[0]['error']}")
        return answers[0]


def load_run(path: Path, *, checkpoint: str = "last", selection: str = "top", **overrides: Any) -> Run:
    """Load the model of a run; `mcar_tf.runs.python` has the form for Python users.

    Args:
        path: the run folder.
        checkpoint: "last", the result of the run, or "best", which exists if the run had a validation split.
        selection: which classes' maps become regions: "top", "bottom" or "random".
        **overrides: other values for `image_size`, `local_size`, `top_n`, `tau`, `fusion`, ... of the config; None
            changes nothing. No weights of a model depend on these options.

    Raises:
        FileNotFoundError: there is no run, or it has not finished an epoch yet.
        ValueError: the run is of another version, or an override is outside its range.
    """
    path = Path(path)
    config = read_run_config(path)
    weights_file = path / "checkpoints" / f"{checkpoint}.weights.h5"
    if not weights_file.is_file():
        reason = (
            "has not finished an epoch yet"
            if checkpoint == "last"
            else "had no validation split to choose by"
        )
        raise FileNotFoundError(
            f"{path} holds no {checkpoint} weights: the run {reason}, or {weights_file.name} is lost."
        )
    config = change_without_training(config, overrides)
    classes = read_classes(path)
    model = build_model(config, len(classes), weights=None, selection=selection)
    load_weights(model, weights_file, path / CONFIG)
    return Run(path, config, classes, model, weights_file, selection)


def check_classes(run: Run, manifest: Manifest) -> None:
    """Refuse a set whose classes are not the run's, and the run's own set if it has changed.

    Raises:
        ValueError: the classes differ, or the set has been built or divided anew since the run was started.
    """
    if run.classes != manifest.classes:
        raise ValueError(
            f"{run.path} knows {len(run.classes)} classes ({', '.join(run.classes[:3])}, ...), {manifest.name} has"
            f" {len(manifest.classes)} ({', '.join(manifest.classes[:3])}, ...): they must be the same."
        )
    check_same_pictures(run.path, run.config, manifest)


def take_over(model: MCAR, config: FitConfig, classes: Sequence[str], source: Run) -> str:
    """Copy another run's weights into a new model: those of the backbone, and of the classes that have the same name.

    Args:
        model: the new model; its weights for classes that the other run does not know stay unchanged.
        config: the options that the new model was built with.
        classes: its C class names.
        source: the other run.

    Returns:
        A sentence for users about what was copied.

    Raises:
        ValueError: the other run has another backbone.
    """
    theirs, ours = ((one.backbone, one.backbone_width) for one in (source.config, config))
    if theirs != ours:
        names = [f"{backbone} of width {width:g}" for backbone, width in (theirs, ours)]
        raise ValueError(f"{source.path} is a run of {names[0]}, not of {names[1]}: no weights fit.")
    copy_backbone(source.model.backbone, model.backbone)
    known = [(row, source.classes.index(name)) for row, name in enumerate(classes) if name in source.classes]
    kernel, bias = (weights.copy() for weights in model.classifier.get_weights())
    their_kernel, their_bias = source.model.classifier.get_weights()
    for row, their_row in known:
        kernel[:, row], bias[row] = their_kernel[:, their_row], their_bias[their_row]
    model.classifier.set_weights([kernel, bias])
    anew = [name for name in classes if name not in source.classes]
    learnt = f"starting from {source.path}: its backbone and {len(known)} of {len(classes)} classes"
    return learnt + (f"; anew: {', '.join(anew[:5])}{', ...' if len(anew) > 5 else ''}" if anew else "")


def build_model(config: FitConfig, num_classes: int, *, weights: str | None, selection: str = "top") -> MCAR:
    """The model that a config describes."""
    set_keras_up()
    return build_mcar(
        num_classes,
        backbone=config.backbone,
        image_size=config.image_size,
        pooling=config.pooling,
        top_n=config.top_n,
        tau=config.tau,
        weights=weights,
        backbone_width=config.backbone_width,
        gwp_lambda=config.gwp_lambda,
        csra_temperature=config.csra_temperature,
        csra_lambda=config.csra_lambda,
        glance_size=config.glance_size,
        local_size=config.local_size,
        localizer=config.localizer,
        box_spread=config.box_spread,
        min_box_cells=config.min_box_cells,
        box_jitter=config.box_jitter,
        fusion=config.fusion,
        look_band=config.look_band,
        look_doubt=config.look_doubt,
        batch_norm=config.batch_norm,
        selection=selection,
        selection_seed=config.seed,
        sync_batch_norm=config.sync_batch_norm,
    )


def set_keras_up() -> None:
    """Give Keras its default settings, whatever `~/.keras/keras.json` sets for other programs.

    Raises:
        ValueError: Keras does not run on TensorFlow; the backend can't be changed once Keras is imported.
    """
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on {keras.config.backend()} in this process; mcar_tf needs TensorFlow. Set"
            " KERAS_BACKEND=tensorflow in the environment before Keras is imported."
        )
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)

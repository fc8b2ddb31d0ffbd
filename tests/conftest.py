"""A prepared set of a few pictures and an untrained run on it, for the tests of commands that take a run."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

# The last class is in no picture of the test split, and its name tries to be HTML.
TINY_CLASSES = ("red", "green", "blue", "<b>rare & odd</b>")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole default suite runs on up to four cores at once where pytest-xdist is installed; `-n 0`: on one.

    Named files run in one process, which starts faster; so do the slow tests, which start many processes themselves.
    """
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS and config.option.markexpr == "not slow"
    if whole and config.option.numprocesses is None and not config.option.usepdb:
        config.option.numprocesses = min(os.cpu_count() or 1, 4)
        config.option.dist = "worksteal"  # neighbours share their module's fixtures


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory) -> Path:
    """The folder that holds the prepared set `tiny`: coloured squares, 16 pictures a split."""
    from pipelines.building.sets import build_set
    from pipelines.samples import RawSet

    data_dir = tmp_path_factory.mktemp("tiny") / "data"
    splits = {
        split: lambda split=split: iter([tiny_sample(split, i) for i in range(16)])
        for split in ("train", "validation", "test")
    }
    build_set(RawSet("tiny", TINY_CLASSES, splits, source="made by a test"), data_dir)
    return data_dir


@pytest.fixture(scope="session")
def untrained_run(tiny_set) -> Path:
    """A run folder on the set `tiny`; not to be changed."""
    return make_untrained_run(tiny_set, "tiny", TINY_CLASSES)


@pytest.fixture(scope="session")
def make_run():
    """`make_untrained_run`, for tests that need other classes."""
    return make_untrained_run


@pytest.fixture(scope="session")
def make_sample():
    """`tiny_sample`."""
    return tiny_sample


@pytest.fixture(scope="session")
def rename_classes():
    """A function of a run folder and names: the run was started with these classes."""

    from mcar_tf.runs.folder import hash_classes

    def rename(run: Path, *names: str) -> None:
        (run / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        environment = json.loads((run / "environment.json").read_text())
        (run / "environment.json").write_text(json.dumps(environment | {"classes": hash_classes(names)}))

    return rename


@pytest.fixture
def tiny_run(untrained_run, tmp_path) -> Path:
    """A run folder of one's own."""
    return Path(shutil.copytree(untrained_run, tmp_path / "run"))


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of four pictures, one of them a WebP in a folder below, and a file that is none."""
    from PIL import Image

    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for i in range(3):
        (folder / f"{i}.png").write_bytes(tiny_sample("test", i).image)
    with Image.open(folder / "0.png") as image:
        image.save(folder / "deeper" / "3.WEBP", "WEBP", lossless=True)
    (folder / "notes.txt").write_text("no picture")
    return folder


def make_untrained_run(data_dir: Path, dataset: str, classes: tuple[str, ...]) -> Path:
    """A run folder as `fit` leaves it, but for training."""
    import keras

    from mcar_tf.config import FitConfig
    from mcar_tf.runs.folder import write_history
    from mcar_tf.runs.loading import build_model
    from mcar_tf.runs.opening import open_run_folder
    from mcar_tf.runs.weights import write_weights
    from pipelines.files import write_text
    from pipelines.manifest import load_manifest

    config = FitConfig(
        dataset=dataset,
        data_dir=data_dir,
        backbone="tiny_resnet",
        weights="none",
        image_size=32,
        batch_size=6,
        top_n=2,
        out_dir=data_dir.parent / "run",
    )
    keras.utils.set_random_seed(0)
    model = build_model(config, len(classes), weights=None)
    # Every class a little above the paper's rule for what is shown: regions to draw.
    kernel, bias = model.classifier.get_weights()
    model.classifier.set_weights([kernel, bias + 1])
    with open_run_folder(config, config.run_dir, load_manifest(data_dir, dataset)) as place:
        place.begin()
    (config.run_dir / "checkpoints").mkdir()
    write_weights(model, config.run_dir / "checkpoints" / "last.weights.h5")
    losses = [
        {"epoch": e, "loss": 2 / e, "global_loss": 1 / e, "local_loss": 1 / e, "learning_rate": 0.01}
        for e in (1, 2, 3)
    ]
    write_history(config.run_dir / "history.csv", losses)
    write_text(config.run_dir / "metrics.json", "{}")
    return config.run_dir


def tiny_sample(split: str, i: int):
    """A square of one class, every third time one of another class beside it, on noise; 48 x 64 px."""
    from PIL import Image

    from pipelines.samples import Sample

    pixels = np.random.default_rng([i, len(split)]).integers(0, 90, (48, 64, 3), np.uint8)
    colors = {0: (230, 30, 30), 1: (30, 230, 30), 2: (30, 30, 230), 3: (230, 230, 30)}
    labels = [i % 3] + ([(i + 1) % (3 if split == "test" else 4)] if i % 3 == 0 else [])
    boxes = []
    for place, label in enumerate(labels):
        top, left = 6 + i, 4 + 30 * place
        pixels[top : top + 24, left : left + 24] = colors[label]
        boxes.append((top / 48, left / 64, (min(top + 24, 48)) / 48, (left + 24) / 64))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Sample(
        id=f"{split}/{i:02}",
        image=file.getvalue(),
        present=tuple(sorted(set(labels))),
        boxes=tuple(boxes),
        box_labels=tuple(labels),
    )

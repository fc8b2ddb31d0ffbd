"""A checkpoint as the MCAR authors' code writes it in, a run folder out; its numbers beside a slow definition."""

import subprocess
import sys

import numpy as np
import pytest
import torch_networks as oracle
from torch_files import write_zip

from mcar_tf import import_run
from mcar_tf.runs.folder import read_classes, read_origin
from pipelines.readers.classes import COCO_CATEGORIES

CLASSES = ("red", "green", "blue", "<b>rare & odd</b>")


def authors_names(state):
    """torchvision's names -> the authors': blocks flat, one `Sequential` deeper, the last convolution beside."""
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        number = int(parts[1])
        if number == 18:
            renamed[".".join(["features.1", *parts[2:]])] = value
        elif number == 0:
            renamed[".".join(["features.0", *parts[1:]])] = value
        else:
            last = 1 if number == 1 else 2  # of the convolutions of a block; 3 places each
            place = 3 * int(parts[3]) + int(parts[4]) if len(parts) == 6 else 3 * last + int(parts[3]) - last
            renamed[f"features.0.{number}.conv.{place}.{parts[-1]}"] = value
    return renamed


@pytest.fixture(scope="module")
def state():
    return oracle.random_state(oracle.mobilenet_v2_pairs())


@pytest.fixture(scope="module")
def head():
    draw = np.random.default_rng(1)
    kernel = draw.normal(0, 0.1, (len(CLASSES), 1280, 1, 1)).astype(np.float32)
    return {"convclass.weight": kernel, "convclass.bias": draw.normal(0, 1, len(CLASSES)).astype(np.float32)}


@pytest.fixture(scope="module")
def checkpoint(state, head, tmp_path_factory):
    saved = {
        "epoch": 60,
        "arch": "mobilenetv2",
        "state_dict": authors_names(state) | head,
        "best_score": 69.8,
    }
    return write_zip(tmp_path_factory.mktemp("theirs") / "model_best.pth.tar", saved)


def import_words(checkpoint, classes, folder, *more, backbone="torch_mobilenet_v2"):
    words = ["--checkpoint", checkpoint, "--backbone", backbone, "--classes", classes, "--out-dir", folder]
    return [*map(str, words), *more]


@pytest.fixture(scope="module")
def imported(checkpoint, tiny_set):
    folder = checkpoint.parent / "run"
    names = checkpoint.parent / "names.txt"
    names.write_text("\n".join(CLASSES) + "\n")
    data = ["--data-dir", str(tiny_set), "--dataset", "tiny"]
    model = ["--image-size", "64", "--pooling", "gap", "--top-n", "2"]
    import_run.main(import_words(checkpoint, names, folder, *data, *model))
    return folder


def test_global_probabilities_are_those_of_the_authors_network(imported, state, head):
    from mcar_tf.runs.loading import load_run

    run = load_run(imported)
    assert run.classes == CLASSES
    assert (run.config.image_size, run.config.pooling, run.config.top_n) == (64, "gap", 2)
    image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
    pooled = oracle.mobilenet_v2(oracle.torchvision_scaling(image), state).mean(axis=(0, 1))
    expected = head["convclass.weight"][:, :, 0, 0] @ pooled + head["convclass.bias"]
    _, logits = run.model.global_pass(image[np.newaxis].astype(np.float32), training=False)
    np.testing.assert_allclose(logits[0], expected, atol=1e-4)


def test_a_run_says_where_it_comes_from(imported):
    origin = read_origin(imported)
    assert origin.pop("sha256").isalnum()
    assert origin == {"file": "model_best.pth.tar", "epoch": 60, "arch": "mobilenetv2", "best_score": 69.8}
    assert read_classes(imported) == CLASSES


def test_coco_checkpoints_are_in_alphabetical_order_and_our_sets_in_the_official_one():
    rows, classes, dataset = import_run.find_classes("coco")
    assert rows[:3] == ["airplane", "apple", "backpack"]
    assert rows[-1] == "zebra"
    assert classes == list(COCO_CATEGORIES.values())
    assert dataset == "coco"
    # In their demo these are "mose" and "motorcycle", "mbrella": sorted by that, they would change places.
    assert rows.index("mouse") == rows.index("motorcycle") + 1
    assert rows.index("umbrella") == rows.index("tv") + 1


def test_rows_are_put_in_the_order_of_the_run(checkpoint, state, head, tmp_path, monkeypatch):
    from mcar_tf.runs.loading import load_run

    rows, classes = list(CLASSES), sorted(CLASSES)
    monkeypatch.setattr(import_run, "find_classes", lambda _: (rows, classes, "tiny"))
    import_run.main(import_words(checkpoint, "coco", tmp_path / "run", "--image-size", "32"))
    run = load_run(tmp_path / "run")
    assert run.classes == tuple(classes)
    kernel, bias = run.model.classifier.get_weights()
    theirs = rows.index("green")
    np.testing.assert_array_equal(
        kernel[:, classes.index("green")], head["convclass.weight"][theirs, :, 0, 0]
    )
    assert bias[classes.index("green")] == head["convclass.bias"][theirs]


@pytest.mark.parametrize(
    ("classes", "more", "message"),
    [
        ("voc", [], r"model_best\.pth\.tar was trained on 4 classes, and `classes` has 20"),
        ("nothing.txt", [], r"`classes` must be voc, coco or an existing file. Received: nothing.txt"),
        ("voc", ["--top-n", "21"], r"`top-n` must lie in \[0, 20\]"),
        ("voc", ["--image-size", "16"], r"`--image-size` must be at least 32 px for torch_mobilenet_v2"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(classes, more, message, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(import_run, "load_tensorflow", lambda: pytest.fail("loaded"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        import_run.main(import_words(checkpoint, classes, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


def test_other_files_backbones_and_folders_are_refused(state, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(import_run, "load_tensorflow", lambda: pytest.fail("loaded"))
    plain = write_zip(tmp_path / "mobilenet_v2.pth", state)
    with pytest.raises(ValueError, match=r"holds no convclass\.weight and convclass\.bias"):
        import_run.main(import_words(plain, "voc", tmp_path / "run"))
    for backbone in ("mobilenet_v2", "efficientnet_lite0"):
        with pytest.raises(
            ValueError, match=r"`backbone` must be one of torch_resnet50, torch_resnet101, torch_mob"
        ):
            import_run.main(import_words(checkpoint, "voc", tmp_path / "run", backbone=backbone))
    (tmp_path / "twice.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(ValueError, match=r"one class name a line, each once\. Received: 'cat' twice"):
        import_run.main(import_words(checkpoint, tmp_path / "twice.txt", tmp_path / "run"))
    with pytest.raises(FileExistsError, match="is there already"):
        import_run.main(import_words(checkpoint, "voc", tmp_path))


def test_a_checkpoint_of_another_backbone_leaves_no_folder(checkpoint, imported, tmp_path):
    words = import_words(
        checkpoint, imported.parent / "names.txt", tmp_path / "run", backbone="torch_resnet50"
    )
    with pytest.raises(ValueError, match=r"as torch_resnet50 by .*; it looks like torch_mobilenet_v2"):
        import_run.main(words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_command_works_on_an_imported_run(imported, tmp_path):
    def run(name, *words):
        command = [sys.executable, "-m", f"mcar_tf.{name}", "--run", imported, *words]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "mAP" in run("evaluate")
    run("calibrate", "--split", "validation")
    run("report")
    out = tmp_path / "exported"
    run(
        "export",
        "--out-dir",
        out,
        "--precision",
        "float32",
        "int8",
        "--pictures",
        8,
        "--calibration-pictures",
        8,
    )
    assert (out / "mcar-int8.tflite").is_file()
    card = (out / "card.md").read_text()
    assert "Not trained here: the weights are those of `model_best.pth.tar`" in card
    assert "learning_rate" not in card
    assert "Imported from" in (imported / "report.html").read_text()

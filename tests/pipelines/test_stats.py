import numpy as np
import pytest
from PIL import Image
from scenes import noise

from pipelines.building.sets import build_set
from pipelines.manifest import load_manifest
from pipelines.samples import RawSet, Sample
from pipelines.stats import draw_statistics, print_statistics, read_statistics


def prepared(folder, num_classes: int, labels: list[tuple[int, ...]]):
    """A set of a picture for each entry of `labels`."""
    samples = [
        Sample(f"{i:03}", noise(i), present, boxes=((0, 0, 1, 1),) * len(present), box_labels=present)
        for i, present in enumerate(labels)
    ]
    classes = tuple(f"class {i}" for i in range(num_classes))
    build_set(RawSet("some", classes, {"train": lambda: iter(samples)}, source="a test"), folder, processes=1)
    return load_manifest(folder, "some")


def test_labels_sizes_and_companions_are_counted(tmp_path):
    manifest = prepared(tmp_path, 4, [(0, 1), (0, 1), (0, 2), (), (1,)])
    found = read_statistics(manifest, "train")
    assert found.labels_per_image == {0: 1, 1: 1, 2: 3}
    assert found.objects == 7
    assert found.sizes.tolist() == [[24, 24]] * 5
    # Class 0 is in three pictures, twice with 1 and once with 2.
    assert found.together_with(0, 4).tolist() == [3, 2, 1, 0]
    assert found.together_with(3, 4).tolist() == [0, 0, 0, 0]


def test_each_class_of_few_has_a_line_with_its_companion(tmp_path, capsys):
    manifest = prepared(tmp_path, 4, [(0, 1), (0, 1), (0, 2), (), (1,)])
    print_statistics(manifest, {"train": read_statistics(manifest, "train")})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith("class ")] == [
        ["class", "train", "difficult", "most", "often", "with"],
        ["class", "0", "3", "0", "class", "1"],
        ["class", "1", "3", "0", "class", "0"],
        ["class", "2", "1", "0", "class", "0"],
        ["class", "3", "0", "0", "-"],
    ]


def test_of_thousands_of_classes_the_first_and_last_have_a_line(tmp_path, capsys):
    manifest = prepared(tmp_path, 9000, [(7, 8999), (7, 5), (7,)])
    statistics = {"train": read_statistics(manifest, "train")}
    print_statistics(manifest, statistics)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60
    assert "... 8,960 classes in between ..." in lines
    assert ["class", "7", "3", "0", "class", "5"] in [line.split() for line in lines]
    figure = draw_statistics(manifest, statistics, tmp_path / "stats.png")
    with Image.open(figure) as image:
        assert max(image.size) < 3000  # px; with a row for each class it would be 120,000


@pytest.mark.parametrize("classes", [3, 200])
def test_a_figure_is_drawn_with_pairs_of_few_classes(tmp_path, classes):
    manifest = prepared(tmp_path, classes, [(0, 1), (2,)])
    figure = draw_statistics(manifest, {"train": read_statistics(manifest, "train")}, tmp_path / "stats.png")
    with Image.open(figure) as image:
        assert np.asarray(image.convert("RGB")).min() < 100


def test_a_link_in_the_place_of_the_figure_is_replaced_not_followed(tmp_path):
    manifest = prepared(tmp_path, 3, [(0, 1), (2,)])
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "stats.png").symlink_to(tmp_path / "victim")
    draw_statistics(manifest, {"train": read_statistics(manifest, "train")}, tmp_path / "stats.png")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "stats.png").is_symlink()

"""Miniature archives under the originals' names go through TFDS' own code, which prepares them in its own format."""

import hashlib
import json
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from miniature import coco_image, write_coco, write_voc

tfds = pytest.importorskip("tensorflow_datasets")

from pipelines.readers.classes import COCO_CATEGORIES  # noqa: E402
from pipelines.readers.coco import read_coco  # noqa: E402
from pipelines.readers.tfds import read_tfds  # noqa: E402
from pipelines.readers.voc import read_voc  # noqa: E402


def prepare(name, archives, data_dir, monkeypatch):
    """Have TFDS prepare a set from archives that stand for the originals: only their checksums are exchanged."""
    builder_class = type(tfds.builder(name, data_dir=data_dir))
    infos = {}
    for url, info in builder_class.url_infos.items():
        if (path := archives / info.filename).exists():
            infos[url] = tfds.download.checksums.UrlInfo(
                size=path.stat().st_size,
                checksum=hashlib.sha256(path.read_bytes()).hexdigest(),
                filename=info.filename,
            )
    monkeypatch.setattr(builder_class, "url_infos", infos)
    return read_tfds(name, data_dir, manual_dir=archives)


@pytest.fixture
def no_progress_bars():
    tfds.disable_progress_bar()


def by_split(raw):
    return {split: {sample.id: sample for sample in iterate()} for split, iterate in raw.splits.items()}


def encoded(sample):
    return sample.image.read_bytes() if isinstance(sample.image, Path) else sample.image


def write_voc_archives(folder, year):
    root = write_voc(folder / f"devkit{year}", year=year)
    archives = folder / f"archives{year}"
    archives.mkdir()
    names = {
        2007: ("VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"),
        2012: ("VOCtrainval_11-May-2012.tar", "VOC2012test.tar"),
    }
    for name in names[year]:
        with tarfile.open(archives / name, "w") as archive:
            archive.add(root.parent, "VOCdevkit")
    return root, archives


@pytest.mark.usefixtures("no_progress_bars")
@pytest.mark.parametrize("year", [2007, 2012])
def test_voc_is_the_same_as_from_the_devkit(tmp_path, monkeypatch, year):
    root, archives = write_voc_archives(tmp_path, year)
    raw = prepare(f"voc/{year}", archives, tmp_path / "tfds", monkeypatch)
    original = read_voc(root, year=year)
    assert (raw.name, raw.classes, raw.licence) == (original.name, original.classes, original.licence)
    found, expected = by_split(raw), by_split(original)
    assert {split: set(samples) for split, samples in found.items()} == {
        split: set(samples) for split, samples in expected.items()
    }
    for split, samples in found.items():
        for id, sample in samples.items():
            wanted = expected[split][id]
            assert encoded(sample) == encoded(wanted)
            assert sample.present == wanted.present
            assert sample.difficult == wanted.difficult
            assert sample.unknown == wanted.unknown
            assert sample.box_labels == wanted.box_labels
            for box, wanted_box in zip(sample.boxes, wanted.boxes, strict=True):
                assert box == pytest.approx(wanted_box, abs=1 / 20 + 1e-6)  # a pixel of 20


def write_coco_archives(folder):
    """The originals' zip files; those of COCO's test pictures, which TFDS prepares too, hold one picture each."""
    source = write_coco(folder / "coco")
    path = source / "annotations" / "instances_train2014.json"
    path.write_text(
        path.read_text().replace("[39, 19, 5, 5]", "[30, 10, 5, 5]")
    )  # TFDS takes no box off the picture
    archives = folder / "archives"
    archives.mkdir()
    for part in ("train2014", "val2014"):
        with zipfile.ZipFile(archives / f"{part}.zip", "w") as archive:
            for path in (source / part).iterdir():
                archive.write(path, f"{part}/{path.name}")
    with zipfile.ZipFile(archives / "annotations_trainval2014.zip", "w") as archive:
        for path in (source / "annotations").iterdir():
            archive.write(path, f"annotations/{path.name}")
    picture = (source / "val2014" / "000000000042.jpg").read_bytes()
    categories = [{"id": id, "name": name} for id, name in reversed(COCO_CATEGORIES.items())]
    for part in ("test2014", "test2015"):
        info = {"images": [coco_image(99)], "categories": categories}
        with zipfile.ZipFile(archives / f"image_info_{part}.zip", "w") as archive:
            archive.writestr(f"annotations/image_info_{part}.json", json.dumps(info))
        with zipfile.ZipFile(archives / f"{part}.zip", "w") as archive:
            archive.writestr(f"{part}/{coco_image(99)['file_name']}", picture)
    return source, archives


@pytest.mark.usefixtures("no_progress_bars")
def test_coco_is_the_same_as_from_the_original_download(tmp_path, monkeypatch):
    source, archives = write_coco_archives(tmp_path)
    # TFDS numbers classes as the JSON lists them, here backwards: they must be matched by name.
    raw = prepare("coco/2014", archives, tmp_path / "tfds", monkeypatch)
    original = read_coco(source)
    assert (raw.name, raw.classes, raw.licence) == (original.name, original.classes, original.licence)
    found, expected = by_split(raw), by_split(original)
    assert raw.skipped == original.skipped
    assert {split: set(samples) for split, samples in found.items()} == {"train": {"9", "30"}, "test": {"42"}}
    for split, samples in found.items():
        for id, sample in samples.items():
            wanted = expected[split][id]
            assert encoded(sample) == encoded(wanted)
            assert sample.present == wanted.present
            assert sample.box_labels == wanted.box_labels

    # What TFDS has prepared is read without a network and without the archives.
    again = read_tfds("coco/2014", tmp_path / "tfds", download=False, keep_unlabelled=True)
    assert {sample.id for sample in again.splits["train"]()} == {"9", "25", "30"}


def test_another_set_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(ValueError, match=r"Received: 'voc/2006'. Did you mean `voc/2007`\?"):
        read_tfds("voc/2006", tmp_path)


def test_what_is_not_prepared_and_must_not_be_downloaded_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"has not prepared voc/2007 .*build voc2007 from there with `--source`"
    ):
        read_tfds("voc/2007", tmp_path, download=False)


def test_without_a_network_the_way_out_is_told_at_once(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(
        FileNotFoundError, match=r"cannot be reached \(Network is unreachable\). Without it: put"
    ):
        read_tfds("coco/2014", tmp_path)


@pytest.mark.usefixtures("no_progress_bars")
def test_a_damaged_archive_is_refused(tmp_path):
    _, archives = write_voc_archives(tmp_path, 2007)  # which have not the originals' checksums
    with pytest.raises(FileNotFoundError, match=re.escape("TFDS could not get voc/2007: ")):
        read_tfds("voc/2007", tmp_path / "tfds", manual_dir=archives)

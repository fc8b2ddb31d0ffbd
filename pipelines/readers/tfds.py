"""Read COCO and VOC from TensorFlow Datasets as labelled samples; the pictures' bytes stay as they are."""

import functools
import socket
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.readers import coco, voc
from pipelines.readers.classes import COCO_CLASSES, VOC_CLASSES
from pipelines.samples import RawSet, Sample, Skip
from pipelines.words import nearest

DEFAULT_DATA_DIR = Path("~/tensorflow_datasets")  # TFDS' own

# Our split -> the TFDS splits that make it up. Our splits are the same as from the original downloads.
COCO_SPLITS = {"train": ("train",), "test": ("validation",)}
VOC_SPLITS = {
    "train": ("train", "validation"),
    "test": ("test",),
    "devkit_train": ("train",),
    "devkit_val": ("validation",),
}

# TFDS name -> name of the prepared set.
NAMES = {"coco/2014": "coco", "coco/2017": "coco2017", "voc/2007": "voc2007", "voc/2012": "voc2012"}


def read_tfds(
    name: str,
    data_dir: Path | str | None = None,
    *,
    download: bool = True,
    manual_dir: Path | str | None = None,
    keep_unlabelled: bool = False,
) -> RawSet:
    """COCO or VOC through TFDS: the same classes, ids and splits as `read_coco` and `read_voc` give.

    Boxes are TFDS' own; those of VOC start one pixel further right and down than ours, as TFDS counts from 0.

    Args:
        name: `coco/2014`, `coco/2017`, `voc/2007` or `voc/2012`.
        data_dir: where TFDS keeps its prepared sets, `~/tensorflow_datasets` by default.
        download: let TFDS download and prepare the set, with its progress bars, if it is not there.
        manual_dir: a folder with the original archives, by their original names; TFDS takes them from there instead
            of downloading them.
        keep_unlabelled: as in `read_coco`.

    Raises:
        ValueError: not one of these sets.
        FileNotFoundError: it is not prepared, and must not or could not be downloaded.
    """
    if name not in NAMES:
        raise ValueError(
            f"TFDS' sets read here are {', '.join(NAMES)}. Received: {name!r}.{nearest(name, NAMES)}"
        )
    import tensorflow_datasets as tfds

    folder = _prepared_folder(name, Path(data_dir or DEFAULT_DATA_DIR).expanduser(), download, manual_dir)
    builder = tfds.builder_from_directory(folder)
    family, year = name.split("/")
    classes, parts = (COCO_CLASSES, COCO_SPLITS) if family == "coco" else (VOC_CLASSES, VOC_SPLITS)
    for part in sorted({part for names in parts.values() for part in names}):
        if part not in builder.info.splits:
            raise ValueError(f"{folder} has no split `{part}`; it has {', '.join(builder.info.splits)}.")
    # TFDS numbers the classes in its own order: they are matched by name.
    labels = builder.info.features["objects"]["label"].names
    unknown = next((label for label in labels if label not in classes), None)
    if unknown is not None:
        raise ValueError(f"{folder}: `{unknown}` is not a class of {name}.{nearest(unknown, classes)}")
    index = [classes.index(label) for label in labels]

    skipped: dict[str, list[Skip]] = {split: [] for split in parts}
    splits: dict[str, Callable[[], Iterator[Sample]]] = {}
    for split, names in parts.items():
        if family == "coco":
            splits[split] = functools.partial(
                _coco_samples, folder, names, index, keep_unlabelled, skipped[split]
            )
        else:
            splits[split] = functools.partial(
                _voc_samples, folder, names, index, labelled=(year, split) != ("2012", "test")
            )
    return RawSet(
        name=NAMES[name],
        classes=classes,
        splits=splits,
        source=f"TensorFlow Datasets {builder.info.full_name}, {builder.info.homepage}; "
        + ", ".join(f"{split} = {' + '.join(names)}" for split, names in parts.items()),
        licence=coco.LICENCE if family == "coco" else voc.LICENCE,
        skipped=skipped,
    )


def _prepared_folder(name: str, data_dir: Path, download: bool, manual_dir: Path | str | None) -> Path:
    """The folder in which TFDS has prepared a set; it is told to prepare the set if it has not yet."""
    import tensorflow_datasets as tfds
    from requests.exceptions import RequestException

    versions = [info.parent for info in (data_dir / name).glob("*.*.*/dataset_info.json")]
    if versions:
        return max(versions, key=lambda version: tuple(map(int, version.name.split("."))))
    way_out = (
        "Without it: put the original archives, by their names, into a folder for `--manual-dir`; or unpack"
        f" them and build {NAMES[name]} from there with `--source`."
    )
    if not download:
        raise FileNotFoundError(
            f"TFDS has not prepared {name} in {data_dir}, and may not download it. {way_out}"
        )
    builder = tfds.builder(name, data_dir=data_dir)
    downloads = data_dir / "downloads"
    if manual_dir is None and not any(downloads.rglob("*.INFO")):
        _refuse_offline(name, next(iter(builder.url_infos)), way_out)
    try:
        builder.download_and_prepare(
            download_dir=downloads, download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
        )
    except (
        RequestException,
        tfds.download.DownloadError,
        tfds.download.download_manager.NonMatchingChecksumError,
        tfds.download.extractor.ExtractError,
    ) as error:
        raise FileNotFoundError(f"TFDS could not get {name}: {error} {way_out}") from error
    return Path(builder.data_path)


def _refuse_offline(name: str, url: str, way_out: str) -> None:
    """Fail at once if the host can't be reached: TFDS would retry for minutes before it says so."""
    if urllib.request.getproxies():
        return  # behind a proxy, our own attempt says nothing about TFDS'
    host = urlsplit(url).hostname or ""
    try:
        socket.create_connection((host, 443), timeout=10).close()
    except OSError as error:
        raise FileNotFoundError(
            f"TFDS would download {name} from {host}, which cannot be reached ({error}). {way_out}"
        ) from error


def _coco_samples(
    folder: Path, parts: tuple[str, ...], index: list[int], keep_unlabelled: bool, skipped: list[Skip]
) -> Iterator[Sample]:
    skipped.clear()
    for example in _examples(folder, parts):
        id = str(int(example["image/id"]))
        present, boxes, labels = _labels(example, index)
        if present or keep_unlabelled:
            yield Sample(id, example["image"], present, boxes=boxes, box_labels=labels)
        else:
            skipped.append(Skip(id=id, why="no labelled object"))


def _voc_samples(folder: Path, parts: tuple[str, ...], index: list[int], labelled: bool) -> Iterator[Sample]:
    for example in _examples(folder, parts):
        id = Path(example["image/filename"].decode()).stem
        present, boxes, labels = _labels(example, index)
        easy = {
            label for label, hard in zip(labels, example["objects"]["is_difficult"], strict=True) if not hard
        }
        yield Sample(
            id=id,
            image=example["image"],
            present=present,
            difficult=tuple(label for label in present if label not in easy),
            unknown=() if labelled else tuple(range(len(VOC_CLASSES))),
            boxes=boxes,
            box_labels=labels,
        )


def _examples(folder: Path, parts: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """The examples of some of TFDS' splits, always in the same order, with the pictures as encoded bytes."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    for part in parts:
        dataset = builder.as_dataset(
            split=part,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
        )
        yield from tfds.as_numpy(dataset)


def _labels(
    example: Mapping[str, Any], index: list[int]
) -> tuple[tuple[int, ...], tuple[coco.Box, ...], tuple[int, ...]]:
    """The present classes, the boxes and the boxes' classes of an example."""
    labels = tuple(index[label] for label in example["objects"]["label"].tolist())
    boxes = tuple((ymin, xmin, ymax, xmax) for ymin, xmin, ymax, xmax in example["objects"]["bbox"].tolist())
    return tuple(sorted(set(labels))), boxes, labels

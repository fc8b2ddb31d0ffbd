"""Open the tables in a file or folder of labels; file names and first lines tell which form they have."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

from pipelines.readers.csv_tables import open_csv
from pipelines.readers.folder_tables import Yolo, find_class_folders
from pipelines.readers.json_tables import open_json
from pipelines.readers.rows import PICTURE_ENDINGS, Table, Told, split_named
from pipelines.readers.xml_tables import Cvat, Voc, find_annotations, is_cvat
from pipelines.words import nearest, spell

Opener = Callable[[Path, str | None, Told, Path | None], Table]


def _open_parquet(path: Path, split: str | None, told: Told, folder: Path | None = None) -> Table:
    from pipelines.readers.parquet_tables import Parquet

    return Parquet(path, split, told, folder)


# A file's ending -> what opens it.
SHAPES: dict[str, Opener] = {
    ".csv": open_csv,
    ".tsv": open_csv,
    ".json": open_json,
    ".jsonl": open_json,
    ".ndjson": open_json,
    ".parquet": _open_parquet,
    ".txt": open_csv,
    ".xml": Cvat,
    ".yaml": Yolo,
    ".yml": Yolo,
}
IN_FOLDERS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")  # looked for in a folder
# Parts of the names of files that lie beside a table but are not tables.
BESIDE = ("notes.json", "class-descriptions", "list_eval_partition", "list_bbox", "list_landmarks")
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


def find_tables(source: Path, told: Told) -> list[Table]:
    """The tables of a source: one for each split, or one for all.

    Raises:
        ValueError, FileNotFoundError: there is no table, or it can't be known which one is meant; something was told
            that makes no difference.
    """
    tables = _open_source(source, told)
    given = [field.name for field in dataclasses.fields(told) if getattr(told, field.name) is not None]
    for table in tables:
        for name in given:
            if name not in table.uses:
                raise ValueError(
                    f"`--{spell(name)}` does nothing for {table.path}, which is read as {', '.join(table.read_as)}."
                    " Leave it out."
                )
        if table.split is not None and table.names_splits:
            raise ValueError(
                f"{table.path} has a column `split`, beside a file for each split. Keep one of them."
            )
    if told.none_label is not None and told.none_label in (told.classes or ()):
        raise ValueError(
            f"`{told.none_label:.60}` is a class of --classes, and --none-label says that it is none."
        )
    return tables


def _open_source(source: Path, told: Told) -> list[Table]:
    if not source.exists():
        near = nearest(source.name, os.listdir(source.parent)) if source.parent.is_dir() else ""
        raise FileNotFoundError(f"{source} is not there.{near}")
    if source.is_file():
        return [_open_table(source, None, told)]
    found = _tables_in(source)
    if len(found) == 1:
        return [_open_table(found[0], None, told)]
    if found:
        return _check_alike(_open_one_a_split(source, found, told), told)
    for find in (_find_celeba, _find_in_split_folders, _find_coco, _find_xml, _find_yolo, _find_data_folder):
        if tables := find(source, told):
            return _check_alike(tables, told)
    if tables := find_class_folders(source, told):
        return tables
    raise FileNotFoundError(
        f"{source} holds no CSV and no JSON, nor labels in another form that we know (docs/data.md)."
        f"{_what_there_is(source)} Name the table itself, or its folder."
    )


def _what_there_is(folder: Path) -> str:
    """What a folder without a table holds instead, as a sentence that says what to do; "" where we don't know."""
    names = sorted(os.listdir(folder))
    if archive := next((name for name in names if name.lower().endswith(ARCHIVES)), None):
        return f" Unpack {archive} first."
    if sheet := next((name for name in names if name.lower().endswith(tuple(SPREADSHEETS))), None):
        return f" Save {sheet} as CSV."
    if next((folder / "labels").rglob("*.txt"), None):
        return (
            " It looks like YOLO's, but for data.yaml: write one with `names: [cat, dog]`, the classes in the order"
            " of their numbers, and `train: images/train`."
        )
    if _has_pictures(folder):
        return " There are pictures in it, and nothing says what they show."
    return ""


def _has_pictures(folder: Path) -> bool:
    return any(name.lower().endswith(PICTURE_ENDINGS) for name in os.listdir(folder))


def _open_table(path: Path, split: str | None, told: Told, folder: Path | None = None) -> Table:
    opener = SHAPES.get(path.suffix.lower())
    if opener is None:
        mend = "Unpack it first: " if path.name.lower().endswith(ARCHIVES) else ""
        mend = "Save it as CSV: " if path.suffix.lower() in SPREADSHEETS else mend
        raise ValueError(f"{path}: {mend}a table must be one of {', '.join(SHAPES)}, or a folder.")
    if path.suffix.lower() == ".xml" and not is_cvat(path):
        raise ValueError(f"{path} is no list of CVAT's. Of VOC's XML files name the folder.")
    return opener(path, split, told, folder)


def _tables_in(folder: Path) -> list[Path]:
    # A file whose name begins with a dot is not a table: a Mac's archive has `._labels.csv` beside `labels.csv`.
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if entry.name.lower().endswith(IN_FOLDERS)
            and not entry.name.startswith(".")
            and not any(beside in entry.name.lower() for beside in BESIDE)
            and entry.is_file()
        )


def _open_one_a_split(source: Path, found: list[Path], told: Told, folder: Path | None = None) -> list[Table]:
    """One table per split, named after it; with Parquet, several: `train-00000-of-00002.parquet`."""
    parquet = all(path.suffix.lower() == ".parquet" for path in found)
    stems = [re.sub("[0-9]+$", "", path.stem.removeprefix("instances_")) for path in found]
    stems = [stem.partition("-")[0] for stem in stems] if parquet else stems
    splits = [split_named(stem) for stem in stems]
    if None in splits or (not parquet and len(set(splits)) < len(splits)):
        raise ValueError(
            f"{source} holds {', '.join(path.name for path in found[:6])}: name the one to read, or have one a"
            " split, named train, val and test."
        )
    return [_open_table(path, split, told, folder) for path, split in zip(found, splits, strict=True)]


def _find_celeba(source: Path, told: Told) -> list[Table] | None:
    for path in (source / "list_attr_celeba.txt", source / "Anno" / "list_attr_celeba.txt"):
        if path.is_file():
            return [_open_table(path, None, told, source)]
    return None


def _find_in_split_folders(source: Path, told: Told) -> list[Table] | None:
    """`train/`, `valid/` and `test/`, each with a table and its pictures."""
    tables = []
    with os.scandir(source) as entries:
        folders = sorted(Path(e.path) for e in entries if e.is_dir() and split_named(e.name))
    for folder in folders:
        found = _tables_in(folder)
        if len(found) == 1:
            tables.append(_open_table(found[0], split_named(folder.name), told))
        elif find_annotations(folder) or any(folder.glob("*.xml")):
            tables.append(Voc(folder, split_named(folder.name), told))
    if tables and len(tables) < len(folders):
        known = {table.split for table in tables}
        lacking = next(folder for folder in folders if split_named(folder.name) not in known)
        raise ValueError(f"{lacking} has not one table, as {tables[0].path.parent} has.")
    return tables or None


def _find_coco(source: Path, told: Told) -> list[Table] | None:
    """The JSON files of COCO's layout, `annotations/instances_train2017.json`, with pictures in folders beside it."""
    folder = source / "annotations"
    found = [path for path in _tables_in(folder) if path.suffix.lower() == ".json"] if folder.is_dir() else []
    found = [path for path in found if path.name.startswith("instances_")] or found
    if len(found) == 1:
        return [_open_table(found[0], None, told, source)]
    return _open_one_a_split(folder, found, told, source) if found else None


def _find_xml(source: Path, told: Told) -> list[Table] | None:
    if (
        source.name.lower() == "annotations"
        and not _has_pictures(source)
        and next(source.glob("*.xml"), None)
    ):
        source = source.parent
    for folder in (source, *sorted(source.glob("VOC*")), *sorted(source.glob("VOCdevkit/VOC*"))):
        if find_annotations(folder):
            return [Voc(folder, None, told)]
    if (source / "annotations.xml").is_file() and is_cvat(source / "annotations.xml"):
        return [Cvat(source / "annotations.xml", None, told)]
    return [Voc(source, None, told)] if next(source.glob("*.xml"), None) else None


def _find_yolo(source: Path, told: Told) -> list[Table] | None:
    found = sorted(p for p in source.glob("*.y*ml") if p.suffix in (".yaml", ".yml"))
    if len(found) > 1:
        raise ValueError(
            f"{source} holds {', '.join(path.name for path in found[:6])}: name the one to read."
        )
    return [Yolo(found[0], None, told)] if found else None


def _find_data_folder(source: Path, told: Told) -> list[Table] | None:
    """The Parquet files of the Hugging Face hub's layout, `data/train-00000-of-00001.parquet`."""
    folder = source / "data"
    if not folder.is_dir():
        return None
    found = [path for path in _tables_in(folder) if path.suffix.lower() == ".parquet"]
    return _open_one_a_split(folder, found, told) if found else None


def _check_alike(tables: list[Table], told: Told) -> list[Table]:
    for table in tables:
        if table.declared != tables[0].declared and told.classes is None:
            raise ValueError(
                f"{table.path} and {tables[0].path} name other classes, or in another order. Give the classes."
            )
    return tables

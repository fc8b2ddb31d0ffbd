"""Find out where the pictures lie whose files a table names, and give them ids."""

import dataclasses
import functools
import hashlib
import itertools
import os
import re
import unicodedata
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.readers.rows import PICTURE_ENDINGS, Row, Table
from pipelines.words import nearest

MOST_FOLDERS = 200  # how many folders are tried
SAMPLED = 50  # at least so many names are used to find the place, if there are so many
UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an uploaded file


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the pictures of some tables lie.

    Attributes:
        root: the folder of all pictures.
        of_table: table's path -> its own folder, relative to the root, and how its names become paths below that.
    """

    root: Path
    of_table: dict[Path, tuple[str, "Place"]]

    @classmethod
    def find(cls, tables: Sequence[Table], root: Path, *, beside: bool, extension: str | None) -> "Places":
        """Find out where the pictures of each table lie, by files from all over it.

        Args:
            tables: the tables.
            root: the folder of all pictures.
            beside: whether each table's files are relative to its own folder; otherwise they are relative to `root`.
            extension: what is missing at the end of the files' names, where the user told it.
        """
        found = {}
        for table in tables:
            prefix = os.path.relpath(table.folder, root) if beside else os.curdir
            prefix = "" if prefix == os.curdir else prefix
            place: Place | None = None
            if not table.holds_pictures and not (table.exact and extension is None):
                files = _spread(table)
                # Where a picture of the sample is missing, the place of the first one lets its line be named.
                place = find_place(files, root / prefix, extension) or find_place(
                    files[:1], root / prefix, extension
                )
            found[table.path] = (prefix, place or Place(extension=extension or ""))
        places = cls(root, found)
        for table in tables:
            table.measure(functools.partial(places.file_of, table))
        return places

    def file_of(self, table: Table, file: str) -> Path:
        """The path of a file that a table names."""
        return self.root / self.path_of(table, Row(table.path, file, file, ()))

    def path_of(self, table: Table, row: Row) -> str:
        """The path of a row's file, relative to the root; it must not lead out of the root."""
        prefix, place = self.of_table[table.path]
        if table.holds_pictures:
            return row.file
        if not row.file or "\0" in row.file:
            raise ValueError(f"{row.where}: `file` names no file. Received: {row.file!r:.40}")
        file = row.file if place.is_plain else place.find(row.where, row.file, self.root / prefix)
        file = f"{prefix}/{file}" if prefix else file
        return file if _PLAIN_PATH.fullmatch(file) else _below_root(row, file, self.root)

    def describe(self) -> str:
        """What is printed after `file = image_name`, for the first table."""
        return next(iter(self.of_table.values()))[1].describe()


@dataclasses.dataclass(frozen=True)
class Place:
    """How a file's name in a table becomes a path below the folder of the pictures.

    Attributes:
        drop: how many folders at the beginning of the name to drop, because they are not there.
        folders: the folders in one of which the file lies.
        extension: what to append to the name.
        bare: whether to remove a prefix that Label Studio puts before the name and that the file lacks.
        any_case: whether the name's ending may be in capitals on disk and not in the table, or the other way round.
    """

    drop: int = 0
    folders: tuple[str, ...] = ("",)
    extension: str = ""
    bare: bool = False
    any_case: bool = False

    @functools.cached_property
    def is_plain(self) -> bool:
        """Whether the names are paths as they stand."""
        return self == Place()

    def paths(self, file: str) -> Iterator[str]:
        """The paths at which a file may lie."""
        name = "/".join(_parts(file)[self.drop :]) if self.drop else file
        if self.bare:
            name = re.sub(UPLOADED, "", name)
        stem, ending = os.path.splitext(name + self.extension)
        endings = dict.fromkeys((ending, ending.lower(), ending.upper())) if self.any_case else (ending,)
        for folder, last in itertools.product(self.folders, endings):
            yield os.path.join(folder, stem) + last if folder else stem + last

    def find(self, where: str, file: str, root: Path) -> str:
        """The path at which a row's file lies; if it is at none, the first of them; at two, a ValueError."""
        if len(self.folders) == 1 and not self.any_case:
            return next(self.paths(file))
        found = [path for path in self.paths(file) if os.path.isfile(root / path)]
        for other in found[1:]:
            if os.path.dirname(other) != os.path.dirname(found[0]):
                raise ValueError(
                    f"{where}: {file!r:.80} may be {found[0]} or {other}. Write the folder into the table, or"
                    " --images says which is meant."
                )
        return found[0] if found else next(self.paths(file))

    def describe(self) -> str:
        """What is printed after `file = image_name`."""
        text = f" + {self.extension}" if self.extension else ""
        if self.drop:
            text += f" without its first {'folder' if self.drop == 1 else f'{self.drop} folders'}"
        if self.folders != ("",):
            shown = ", ".join(f"{folder}/" for folder in self.folders[:3] if folder)
            text += f" in {shown}{', ...' if len(self.folders) > 3 else ''}"
        if self.any_case:
            text += " (endings in capitals or not)"
        return text


def local_name(file: str) -> str:
    """The local file of an address of Label Studio's: `/data/local-files/?d=a.jpg`, `s3://bucket/a.jpg`."""
    if "?d=" in file:
        return urllib.parse.unquote(file.partition("?d=")[2])
    if "://" in file:
        return urllib.parse.unquote(urllib.parse.urlsplit(file).path).lstrip("/")
    return file


def find_place(files: Sequence[str], root: Path, extension: str | None) -> Place | None:
    """The nearest place where all of these files lie; None if there is none.

    Raises:
        ValueError: they lie in two places.
    """
    files = list(dict.fromkeys(files))
    if not files:
        return None
    folders = list(itertools.islice(_folders(root), MOST_FOLDERS))
    depth = max(len(_parts(file)) for file in files)
    if extension is not None:
        extensions = [extension]
    elif all(file.lower().endswith(PICTURE_ENDINGS) for file in files):
        extensions = [""]
    else:
        extensions = ["", *PICTURE_ENDINGS, *(ending.upper() for ending in PICTURE_ENDINGS)]
    ways = itertools.product((False, True), (False, True), range(depth), extensions)
    for any_case, bare, drop, ending in ways:

        def place(*folders: str) -> Place:
            return Place(drop, folders, ending, bare, any_case)  # noqa: B023 - called in this turn only

        found = [folder for folder in folders if _is_there(place(folder), files[0], root)]
        whole = [f for f in found if all(_is_there(place(f), x, root) for x in files)]
        if whole:
            if len(whole) > 1 and "" not in whole:
                raise ValueError(
                    f"{files[0]!r:.80} lies in {whole[0]}/ and in {whole[1]}/: --images says which is meant."
                )
            return place(whole[0] if "" not in whole else "")
        # The files lie in different folders: archives of many pictures unpack into several.
        if found and all(_is_there(place(*folders), x, root) for x in files):
            used = [f for f in folders if any(_is_there(place(f), x, root) for x in files)]
            siblings = [one for folder in used for one in _siblings(folder, folders) if one not in used]
            return place(*dict.fromkeys(used + siblings))
    return None


def id_of(relative: str) -> str:
    """A picture's id: its path below the root, and a hash of that if characters had to be replaced."""
    if _PLAIN_PATH.fullmatch(relative):
        return relative
    replaced = re.sub(r"[^A-Za-z0-9_./-]", "_", relative)
    if replaced == relative:
        return relative
    return f"{replaced}-{hashlib.blake2b(relative.encode(), digest_size=8).hexdigest()}"


def nearest_file(path: Path) -> str:
    """The end of an error message on a missing file: ` Did you mean b.jpg?`, if there is such a file beside it."""
    if not path.parent.is_dir():
        return f" Nor is its folder {path.parent}."
    with os.scandir(path.parent) as entries:
        return nearest(path.name, [entry.name for entry in itertools.islice(entries, 10_000)])


# A path with nothing to resolve, which is also a valid id. Nearly all paths match, and need no further work.
_PLAIN_PATH = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def _below_root(row: Row, file: str, root: Path) -> str:
    written = _as_on_disk(file, root)
    relative = os.path.relpath(os.path.join(os.path.abspath(root), written), os.path.abspath(root))
    if relative.split(os.sep)[0] in (os.pardir, os.curdir):
        raise ValueError(f"{row.where}: {row.file} is outside of {root}, the folder of the pictures.")
    return relative


def _as_on_disk(file: str, root: Path) -> str:
    """The spelling under which a file exists: Windows has backslashes in paths, Macs split accents from letters."""
    usual = file.replace("\\", "/")
    spellings = [
        file,
        usual,
        *(unicodedata.normalize(form, spelling) for spelling in (file, usual) for form in ("NFC", "NFD")),
    ]
    if len(set(spellings)) == 1:
        return file
    return next((spelling for spelling in spellings if os.path.exists(root / spelling)), usual)


def _spread(table: Table) -> list[str]:
    """The files of up to twice `SAMPLED` rows at equal distances, from all over a table."""
    files: list[str] = []
    distance = 1
    for number, row in enumerate(table.rows()):
        if number % distance == 0:
            files.append(row.file)
        if len(files) == 2 * SAMPLED:
            files, distance = files[::2], 2 * distance
    return files


def _is_there(place: Place, file: str, root: Path) -> bool:
    return any(os.path.isfile(root / path) for path in place.paths(file))


def _siblings(folder: str, folders: Sequence[str]) -> list[str]:
    """Folders whose names differ only in a number: `images_002` for `images_001`."""
    alike = re.sub(r"[0-9]+", "#", folder)
    return [one for one in folders if one != folder and "#" in alike and re.sub(r"[0-9]+", "#", one) == alike]


def _folders(root: Path) -> Iterator[str]:
    """The root itself and the folders in it, two levels deep, sorted by name."""
    yield ""
    level = [""]
    for _ in range(2):
        below = []
        for folder in level:
            with os.scandir(root / folder) as entries:
                below += [
                    os.path.join(folder, entry.name)
                    for entry in entries
                    if entry.is_dir() and not entry.name.startswith((".", "__"))
                ]
            if len(below) > MOST_FOLDERS:
                break
        level = sorted(below)
        yield from level


def _parts(file: str) -> list[str]:
    return [part for part in file.replace("\\", "/").split("/") if part not in ("", ".")]

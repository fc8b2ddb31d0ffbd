"""Writes the folder of an audit: the pictures of the cases, the page, and the files of `mcar_tf.auditing.files`."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from mcar_tf.auditing import files, sections
from mcar_tf.auditing.cases import Case
from mcar_tf.auditing.evidence import Box, see_cases
from mcar_tf.auditing.runs import AuditedRun
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.reporting import page
from mcar_tf.reporting.page import Html
from pipelines.files import write_bytes, write_text


def check_place(folder: Path) -> None:
    """Refuse a folder that holds anything but an audit.

    Raises:
        FileExistsError: it does.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / files.CASES).is_file():
        raise FileExistsError(f"{folder} is not empty and holds no audit. Choose another --out-dir.")


def write_audit(
    folder: Path,
    runs: Sequence[AuditedRun],
    parts: Sequence[Predictions],
    found: Sequence[Case],
    *,
    cases: int,
    pictures: int,
) -> list[str]:
    """Write the audit, in place of an earlier one in the same folder.

    Args:
        folder: where to.
        runs: the runs that were asked.
        parts: their predictions.
        found: all cases, the likeliest first.
        cases: how many of them to write.
        pictures: how many of them the page shows.

    Returns:
        The names of what was written, the page first.
    """
    classes = runs[0].manifest.classes
    kept = found[:cases]
    rank = {case: number for number, case in enumerate(kept, start=1)}
    (folder / files.PICTURES).mkdir(parents=True, exist_ok=True)
    write_text(folder / files.CASES, "")  # marks the folder as an audit's until the end
    for old in (folder / files.PICTURES).glob(f"{'[0-9]' * 5}-*"):
        old.unlink()

    names: dict[str, str] = {}
    boxes: dict[Case, Box] = {}
    shown: dict[Case, Html] = {}
    present: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    of_picture: dict[str, list[Case]] = {}
    for case in kept:
        of_picture.setdefault(case.id, []).append(case)
    with tqdm(
        total=len(of_picture), desc="looking at pictures", unit=" pictures", leave=False, disable=None
    ) as bar:
        for number, run in enumerate(runs):
            for identity, seen in see_cases(run, [case for case in kept if case.part == number]):
                own = of_picture[identity]
                names[identity] = files.picture_name(rank[own[0]], identity, seen.encoded)
                write_bytes(folder / files.PICTURES / names[identity], seen.encoded)
                present[identity], sizes[identity] = seen.present, seen.pixels.shape[:2]
                for case in own:
                    boxes[case] = seen.boxes[case.class_index]
                    if rank[case] <= pictures:
                        shown[case] = sections.picture_part(rank[case], case, seen, classes)
                bar.update()
    if len(names) < len(of_picture):
        raise ValueError(f"{runs[0].manifest.name} has been built anew meanwhile: run audit again.")
    title = f"{runs[0].manifest.name}: labels to look at"
    by_kind = [(text, sections.gallery_parts(kind, kept, shown)) for kind, text in sections.TITLES.items()]
    introduction = sections.summary_parts(parts, found, len(shown))
    content = page.page(
        title, introduction, [*by_kind, ("Classes", sections.class_parts(classes, parts, found))]
    )
    write_text(folder / files.PAGE, content)
    files.write_fiftyone(folder / files.FIFTYONE, kept, classes, boxes, names)
    files.write_label_studio(folder, kept, classes, boxes, names, present, sizes)
    files.write_cases(folder / files.CASES, kept, classes, boxes, names)
    return [
        files.PAGE,
        files.CASES,
        files.FIFTYONE,
        files.LABEL_STUDIO,
        files.INTERFACE,
        f"{files.PICTURES}/",
    ]

"""Makes the tables of metrics that `evaluate` prints and writes."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcar_tf.evaluating import columns
from mcar_tf.evaluating.columns import Detail
from mcar_tf.evaluating.metrics_file import to_json
from pipelines.files import write_text
from pipelines.words import counted, csv_text, listed, percent, printable

MOST_CLASSES = 200  # largest number of classes that are printed


def table_lines(
    metrics: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    streams: Sequence[str],
    decided_by: str,
    top3_min_prob: float | None,
) -> list[str]:
    """The paper's Tables I and II in percent, localization, and the AP of each class.

    Args:
        metrics: what `mcar_tf.evaluating.results.evaluate_predictions` returned, with `localization` if measured.
        rows: what `mcar_tf.evaluating.results.class_rows` returned.
        streams: the streams to show.
        decided_by: says which threshold a class must reach to be predicted.
        top3_min_prob: as for `evaluate_predictions`.
    """
    ranked, decided = (columns.measures(Detail.FULL, of_decisions=kind) for kind in (False, True))
    missing = [row["class"] for row in rows if not row["positives"]]
    lines = [f"\n{counted(metrics['images'], 'image')}, {counted(len(rows), 'class')}"]
    if missing:
        lines[0] += (
            f", of which {len(missing)} without positives are left out of all means: {listed(missing)}"
        )
    top3 = "top 3" + (f", p >= {top3_min_prob:g}" if top3_min_prob is not None else "")
    lines += [
        f"\n{'':8}{'':{7 * len(ranked)}}   {decided_by:{7 * len(decided) - 1}}   {top3}",
        f"{'stream':8}" + "   ".join(_row(columns.titles(group)) for group in (ranked, decided, decided)),
    ]
    for stream in streams:
        found = metrics[stream]
        groups = ((ranked, found), (decided, found), (decided, found["top3"]))
        lines.append(f"{stream:8}" + "   ".join(_row(columns.cells(*group)) for group in groups))
    if "localization" in metrics:
        lines += _localization_lines(metrics["localization"])
    shown = most_positives(rows, MOST_CLASSES)
    width = max(5, *(len(printable(row["class"])) for row in shown))
    lines.append(f"\n{'AP':{width}}{'positives':>11}" + "".join(f"{stream:>8}" for stream in streams))
    for row in shown:
        aps = "".join(f"{percent(row[f'AP_{stream}']):>8}" for stream in streams)
        lines.append(f"{printable(row['class']):{width}}{row['positives']:11}{aps}")
    if len(shown) < len(rows):
        lines.append(f"... and {len(rows) - len(shown):,} classes that fewer images show: see per_class.csv")
    lines.append(f"{'mAP':{width}}{'':11}" + "".join(f"{percent(metrics[s]['mAP']):>8}" for s in streams))
    return lines


def most_positives(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """The rows of the classes, in their order; of more than `most`, only those with the most positives."""
    leading = sorted(range(len(rows)), key=lambda c: -rows[c]["positives"])[:most]
    return [rows[c] for c in sorted(leading)]


def write_class_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `per_class.csv`; an unknown number is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in to_json(rows):
        row = {name: "" if value is None else value for name, value in row.items()}
        writer.writerow(row | {"class": csv_text(row["class"])})
    write_text(path, text.getvalue())


def _localization_lines(found: Mapping[str, Any]) -> list[str]:
    return [
        f"\n{'localization':14}{'pointing':>10}{'covered 0.3':>13}{'covered 0.5':>13}"
        f"   ({found['regions']} regions, {found['objects']} objects; no box was trained on)",
        *(
            f"{name:14}{percent(part['pointing_accuracy']):>10}"
            f"{percent(part['objects_covered_30']):>13}{percent(part['objects_covered_50']):>13}"
            for name, part in (("regions", found), ("whole image", found["whole_image"]))
        ),
    ]


def _row(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>7}" for cell in cells)

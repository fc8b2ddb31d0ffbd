"""Metrics in, the tables that `evaluate` prints out."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcar_tf.evaluating import columns
from mcar_tf.evaluating.columns import Detail
from pipelines.words import percent


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
        metrics: of `mcar_tf.evaluating.results.evaluate_predictions`, and `localization` where it was measured.
        rows: of `mcar_tf.evaluating.results.evaluate_classes`.
        streams: that are shown.
        decided_by: says what a class must reach to be predicted.
        top3_min_prob: as for `evaluate_predictions`.
    """
    ranked, decided = (columns.measures(Detail.FULL, of_decisions=kind) for kind in (False, True))
    missing = [row["class"] for row in rows if not row["positives"]]
    lines = [f"\n{metrics['images']} images, {len(rows)} classes"]
    if missing:
        lines[0] += (
            f", of which {len(missing)} without positives are left out of all means: {', '.join(missing)}"
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
    width = max(5, *(len(row["class"]) for row in rows))
    lines.append(f"\n{'AP':{width}}{'positives':>11}" + "".join(f"{stream:>8}" for stream in streams))
    for row in rows:
        aps = "".join(f"{percent(row[f'AP_{stream}']):>8}" for stream in streams)
        lines.append(f"{row['class']:{width}}{row['positives']:11}{aps}")
    lines.append(f"{'mAP':{width}}{'':11}" + "".join(f"{percent(metrics[s]['mAP']):>8}" for s in streams))
    return lines


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

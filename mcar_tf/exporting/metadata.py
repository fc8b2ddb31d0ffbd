"""Add TFLite metadata to a TFLite file: tools show these and read the labels from them.

Metadata describe a file's first subgraph, which is `global_only`. The layout is that of MediaPipe's
`metadata_schema.fbs` (formerly tflite-support's), whose own writer would need OpenCV.
"""

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema

from mcar_tf.exporting.flatbuffer import pack, unpack
from mcar_tf.exporting.folder import LABELS, THRESHOLDS, labels_text, thresholds_text

SCORE_CALIBRATION = "score_calibration.txt"

# A FlatBuffers table: number of a field in the schema -> its value, which is a string, an enumeration's value, a list
# of numbers, a table, or a list of tables.
Table = Mapping[int, Any]


def add_metadata(
    content: bytes,
    classes: Sequence[str],
    *,
    is_float: bool,
    thresholds: Sequence[float] | None = None,
    temperature: float = 1.0,
) -> bytes:
    """Write names, meanings, class names and decision thresholds into a TFLite file.

    `labels.txt` and, if there are thresholds, `thresholds.json` are appended to the file as a zip archive, which
    `unzip` and Python's `zipfile` can read too. So is `score_calibration.txt`, with which tools such as MediaPipe
    turn probabilities into scores that are 0.5 at each class's own threshold.

    Args:
        content: bytes of a TFLite file whose first subgraph is `global_only`.
        classes: C names, in the order of the outputs.
        is_float: whether the file takes floats; metadata must then say how bytes become floats.
        thresholds: C probabilities from which on a class counts as present; None: there are none.
        temperature: T for which sigmoid(logit / T) is the frequency of a class.
    """
    model = unpack(content)
    model.buffers.append(schema.BufferT())
    description = _description(is_float, thresholds is not None, outputs=_outputs_in_order(model))
    model.buffers[-1].data = list(_finish(description, b"M001"))
    entry = schema.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    file = io.BytesIO()
    file.write(pack(model))
    with zipfile.ZipFile(file, "a") as archive:
        # An explicit ZipInfo has a fixed date, so the same model gives the same bytes.
        archive.writestr(zipfile.ZipInfo(LABELS), labels_text(classes))
        if thresholds is not None:
            archive.writestr(zipfile.ZipInfo(THRESHOLDS), thresholds_text(classes, thresholds))
            text = score_calibration_text(thresholds, temperature)
            archive.writestr(zipfile.ZipInfo(SCORE_CALIBRATION), text)
    return file.getvalue()


def score_calibration_text(thresholds: Sequence[float], temperature: float) -> str:
    """One line `scale,slope,offset` per class: its score is scale x sigmoid(slope x logit(probability) + offset).

    With slope 1 / T and offset -logit(threshold) / T the score is 0.5 where the probability is the threshold.
    """

    def logit(p: float) -> float:
        p = min(max(p, 1e-6), 1 - 1e-6)
        return math.log(p / (1 - p))

    lines = [f"1.0,{1 / temperature:.6f},{-logit(p) / temperature:.6f}" for p in map(float, thresholds)]
    return "\n".join(lines)  # no line break at the end: MediaPipe would read one more class after it


def _outputs_in_order(model: schema.ModelT) -> list[str]:
    """Names of the first subgraph's outputs, in its own order."""
    (signature,) = (one for one in model.signatureDefs if one.subgraphIndex == 0)
    names = {output.tensorIndex: output.name.decode() for output in signature.outputs}
    return [names[index] for index in model.subgraphs[0].outputs]


def _description(is_float: bool, has_thresholds: bool, outputs: Sequence[str]) -> Table:
    """The table ModelMetadata; the comment after each number names its field."""
    is_rgb_image = {0: 2, 1: {0: 1}}  # content_properties: ImageProperties with color_space RGB
    is_feature = {0: 1, 1: {}}  # content_properties: FeatureProperties
    as_they_are = {0: 1, 1: {0: [0.0], 1: [1.0]}}  # options: NormalizationOptions with mean, std
    of_logits = {
        0: 2,
        1: {0: 2},
    }  # options: ScoreCalibrationOptions with score_transformation INVERSE_LOGISTIC
    labels = {0: LABELS, 1: "Class names, one a line.", 2: 2}  # name, description, type: TENSOR_AXIS_LABELS
    calibration = {
        0: SCORE_CALIBRATION,
        1: "Scale, slope and offset of each class: from a score of 0.5 on it counts as present.",
        2: 4,  # type: TENSOR_AXIS_SCORE_CALIBRATION
    }
    image = {
        0: "image",  # name
        1: "RGB in [0, 255], upright, resized bilinearly with antialiasing.",  # description
        3: is_rgb_image,  # content
        4: [as_they_are] if is_float else [],  # process_units
        5: {0: [255.0], 1: [0.0]},  # stats: max, min
    }
    probs = {
        0: "global_probs",
        1: "Probability of each class; several may be present.",
        3: is_feature,
        4: [of_logits] if has_thresholds else [],
        5: {0: [1.0], 1: [0.0]},
        6: [labels, calibration] if has_thresholds else [labels],  # associated_files
    }
    boxes = {0: "boxes", 1: "Regions worth a second look: ymin xmin ymax xmax as fractions.", 3: is_feature}
    box_classes = {0: "box_classes", 1: "The class that each region is of.", 3: is_feature}
    described = {"global_probs": probs, "boxes": boxes, "box_classes": box_classes}
    return {
        0: "MCAR",  # name
        1: "Multi-label image recognition. This is the signature `global_only`, one look at the whole picture; the"
        " signature `mcar` looks again at the regions that matter, `look_at` at one of them.",  # description
        3: [
            {0: "global_only", 2: [image], 3: [described[name] for name in outputs]}
        ],  # subgraph_metadata: name, input and output tensors
        7: "1.0.0",  # min_parser_version
    }


def _finish(table: Table, identifier: bytes) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, table), identifier)
    return bytes(builder.Output())


def _write_table(builder: flatbuffers.Builder, table: Table) -> int:
    """Write a table and everything that it refers to; return its offset."""
    # Whatever a table refers to must be written before it.
    places = {field: _write(builder, value) for field, value in table.items() if not isinstance(value, int)}
    builder.StartObject(max(table, default=-1) + 1)
    for field, value in table.items():
        if isinstance(value, int):
            builder.PrependInt8Slot(field, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(field, places[field], 0)
    return builder.EndObject()


def _write(builder: flatbuffers.Builder, value: str | Table | list[float] | list[Table]) -> int:
    """Write a string, a table, or a vector of numbers or tables; return its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Mapping):
        return _write_table(builder, value)
    items = [_write_table(builder, item) if isinstance(item, Mapping) else item for item in value]
    builder.StartVector(4, len(items), 4)
    for item, original in zip(reversed(items), reversed(value), strict=True):
        if isinstance(original, Mapping):
            builder.PrependUOffsetTRelative(item)
        else:
            builder.PrependFloat32(item)
    return builder.EndVector()

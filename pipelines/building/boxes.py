"""Turn boxes that were measured on a picture as it is stored into boxes of the upright picture."""

from pipelines.pictures import Picture
from pipelines.samples import Sample

Box = tuple[float, float, float, float]

TURNED = "boxes were measured on the picture as it is stored, and have been turned upright with it"
UNSURE = "EXIF turns the picture; its boxes are taken as measured on the upright one"
OTHER_SHAPE = (
    "boxes were measured on a picture of another shape, by the width and height that the source gives"
)
SHAPE_TOLERANCE = 0.02  # of the ratio of the sides: a copy of another size has rounded sides


def upright_boxes(sample: Sample, picture: Picture) -> tuple[tuple[Box, ...], str | None]:
    """The boxes of a sample on its upright picture, and a remark about them or None.

    A tool that ignores EXIF draws boxes on the picture as it is stored, which EXIF may then turn. The width and
    height that such a tool wrote reveal this, unless the turn leaves them as they are.
    """
    if not sample.boxes:
        return (), None
    height, width = picture.height, picture.width
    lies = picture.orientation >= 5  # stored on its side
    if sample.measured is not None:
        measured = sample.measured[0] / sample.measured[1]
        if lies and not _alike(height / width, width / height) and _alike(measured, width / height):
            return tuple(turn_upright(box, picture.orientation) for box in sample.boxes), TURNED
        if not _alike(measured, height / width):
            return sample.boxes, OTHER_SHAPE
        if lies and not _alike(height / width, width / height):
            return sample.boxes, None
    return sample.boxes, UNSURE if picture.orientation != 1 else None


def turn_upright(box: Box, orientation: int) -> Box:
    """Turn a box of a picture as it is stored into the box of the picture as `decode.turn_upright` shows it.

    Args:
        box: ymin xmin ymax xmax, fractions of the stored picture.
        orientation: EXIF's, 1 to 8.
    """
    ymin, xmin, ymax, xmax = box
    if orientation >= 5:  # it is transposed first
        ymin, xmin, ymax, xmax = xmin, ymin, xmax, ymax
    if orientation in (2, 3, 6, 7):
        xmin, xmax = 1 - xmax, 1 - xmin
    if orientation in (3, 4, 7, 8):
        ymin, ymax = 1 - ymax, 1 - ymin
    return ymin, xmin, ymax, xmax


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= SHAPE_TOLERANCE * other

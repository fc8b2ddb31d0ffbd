import numpy as np
import pytest
import tensorflow as tf

from pipelines.building.boxes import OTHER_SHAPE, TURNED, UNSURE, turn_upright, upright_boxes
from pipelines.decode import turn_upright as turn_pixels
from pipelines.pictures import Picture
from pipelines.samples import Sample

BOX = (0.25, 0.1, 0.5, 0.4)  # of a stored picture of 20 x 40 px: rows 5 to 9, columns 4 to 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_the_pixels_inside_it(orientation):
    stored = np.zeros((20, 40, 3), np.uint8)
    stored[5:10, 4:16] = 255
    upright = turn_pixels(tf.constant(stored), tf.constant(orientation)).numpy()
    height, width, _ = upright.shape
    ymin, xmin, ymax, xmax = turn_upright(BOX, orientation)
    rows, columns = np.flatnonzero(upright.max((1, 2))), np.flatnonzero(upright.max((0, 2)))
    assert [ymin * height, ymax * height] == pytest.approx([rows[0], rows[-1] + 1])
    assert [xmin * width, xmax * width] == pytest.approx([columns[0], columns[-1] + 1])


def sample(measured) -> Sample:
    return Sample("x", b"", (0,), boxes=(BOX,), box_labels=(0,), measured=measured)


@pytest.mark.parametrize(
    ("measured", "orientation", "turned", "remark"),
    [
        # The upright picture is 40 px high and 20 wide. EXIF 6 means that it is stored as 20 x 40.
        ((40, 20), 6, False, None),
        ((80, 40), 6, False, None),  # on a copy of another size
        ((20, 40), 6, True, TURNED),
        ((10, 20), 6, True, TURNED),
        ((30, 40), 6, False, OTHER_SHAPE),
        ((40, 20), 1, False, None),
        ((20, 40), 1, False, OTHER_SHAPE),
        ((40, 20), 3, False, UNSURE),  # upside down: the sides don't tell
        (None, 6, False, UNSURE),
        (None, 1, False, None),
    ],
)
def test_the_sides_of_the_picture_that_was_measured_tell_whether_it_lay(
    measured, orientation, turned, remark
):
    boxes, said = upright_boxes(sample(measured), Picture(b"", 40, 20, orientation))
    assert boxes == ((turn_upright(BOX, 6) if turned else BOX),)
    assert said == remark


def test_the_sides_of_a_square_do_not_tell():
    assert upright_boxes(sample((30, 30)), Picture(b"", 30, 30, 6)) == ((BOX,), UNSURE)


def test_a_picture_without_boxes_needs_no_remark():
    assert upright_boxes(Sample("x", b"", (0,)), Picture(b"", 40, 20, 6)) == ((), None)

"""Pictures: what is drawn, where, and that nothing else is touched. How they look was judged by eye."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from mcar_tf.reporting import drawing
from mcar_tf.reporting.regions import select_regions

GREY = np.full((200, 300, 3), 128, np.uint8)
YELLOW, CYAN = drawing.COLORS[:2]


def where(image, color):
    """(top, left, bottom, right) of all pixels of a color, inclusive."""
    rows, columns = np.nonzero((image == color).all(axis=-1))
    return rows.min(), columns.min(), rows.max(), columns.max()


@pytest.fixture
def outputs():
    return {
        "global_probs": np.array([0.9, 0.05, 0.14, 0.5]),
        "probs": np.array([0.7, 0.95, 0.99, 0.6]),
        "boxes": np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.25, 0.5, 0.75, 1], [0, 0, 0.1, 0.1]]),
        "box_classes": np.array([0, 1, 2, 3], np.int32),
    }


def test_shown_are_global_above_01_and_fused_above_06_the_most_probable_first(outputs):
    # dog: global 0.05 is too low; cat: fused 0.6 is not above 0.6.
    regions = select_regions(outputs, ["person", "dog", "train", "cat"])
    assert [region.title for region in regions] == ["train: 0.14 / 0.99", "person: 0.90 / 0.70"]
    assert regions[0].box == (0.25, 0.5, 0.75, 1)


def test_a_model_without_regions_shows_none(outputs):
    outputs |= {"boxes": np.zeros((0, 4)), "box_classes": np.zeros(0, np.int32)}
    assert select_regions(outputs, ["a", "b", "c", "d"]) == []


def test_a_frame_lies_on_the_edge_of_its_box():
    image = drawing.draw_regions(GREY, [[0.25, 0.5, 0.75, 0.9]], [""])
    assert where(image, YELLOW) == (50, 150, 149, 269)
    assert (image[60:140, 160:260] == 128).all()  # the object stays visible


def test_the_frame_of_the_whole_image_is_visible():
    assert where(drawing.draw_regions(GREY, [[0, 0, 1, 1]], [""]), YELLOW) == (0, 0, 199, 299)


def test_the_image_that_was_given_stays_as_it_was():
    before = GREY.copy()
    drawing.draw_regions(GREY, [[0, 0, 1, 1]], ["dog: 0.14 / 0.99"])
    np.testing.assert_array_equal(GREY, before)


def test_boxes_that_coincide_stay_visible_both():
    image = drawing.draw_regions(GREY, [[0, 0, 1, 1], [0, 0, 1, 1]], ["", ""])
    assert where(image, YELLOW) == (0, 0, 199, 299)
    assert where(image, CYAN)[:2] > (0, 0)


def test_a_label_stands_above_its_box_where_there_is_room():
    image = drawing.draw_regions(GREY, [[0.5, 0.5, 0.75, 0.9]], ["dog: 0.14 / 0.99"])
    top, left, *_ = where(image, YELLOW)
    assert top < 95
    assert left == 150
    assert (image[110:140, 160:260] == 128).all()


def test_a_caption_stands_in_a_corner_without_a_box():
    image = drawing.draw_regions(GREY, [], [], captions=["dog: 0.14 / 0.99"])
    assert where(image, drawing.WHITE)[:2] == (0, 0)
    assert (image[100:] == 128).all()


def test_labels_do_not_cover_each_other():
    labels = [(10, 10), (20, 30)]
    placed = []
    for size in labels * 3:
        placed.append(drawing._place_label(size, (0, 0, 99, 99), (100, 100), placed, []))
    for i, one in enumerate(placed):
        assert 0 <= one[0] <= one[2] < 100
        assert 0 <= one[1] <= one[3] < 100
        assert not any(drawing._overlap(one, other) for other in placed[:i])


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (32, 32)])
def test_any_size_of_image_and_any_box_can_be_drawn(size):
    image = np.zeros((*size, 3), np.uint8)
    boxes = [[0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], [-1, -1, 2, 2], [1, 1, 1, 1]]
    drawn = drawing.draw_regions(image, boxes, ["a name that is much too long " * 9, "\n", "", "猫"])
    assert drawn.shape == image.shape


def test_a_panel_fits_images_of_any_shape_into_squares():
    images = [np.full((10, 40, 3), 7, np.uint8), np.full((400, 10, 3), 8, np.uint8), GREY]
    panel = drawing.make_panel(images, tile=100)
    assert panel.shape == (200, 200, 3)
    # 100 px less a gap of 2 on each side: 40 x 10 becomes 96 x 24, in the middle of its square.
    assert where(panel, (7, 7, 7)) == (38, 2, 61, 97)


def test_captions_get_a_line_below():
    panel = drawing.make_panel([GREY], ["a <b> & c"], tile=100)
    assert panel.shape[0] > 100
    assert panel[100:].min() < 100


def test_an_empty_panel_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        drawing.make_panel([])


def test_a_batch_becomes_a_panel_with_its_regions(outputs):
    images = np.full((3, 32, 32, 3), 127.6, np.float32)
    batch = {name: np.stack([value] * 3) for name, value in outputs.items()}
    panel = drawing.make_region_panel(images, batch, ["person", "dog", "train", "cat"])
    assert panel.shape == (640, 640, 3)  # two rows of two squares, the last one empty
    assert (panel == YELLOW).all(axis=-1).any()
    assert (panel == (128, 128, 128)).all(axis=-1).any()
    assert (panel[330:, 330:] == 255).all()


def test_small_pictures_grow_by_a_whole_factor():
    image = np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)
    grown = drawing.give_room(image)
    assert grown.shape == (256, 384, 3)
    np.testing.assert_array_equal(grown[::8, ::8], image)
    large = np.zeros((240, 300, 3), np.uint8)
    assert drawing.give_room(large) is large


def test_small_photographs_grow_smoothly():
    edge = np.zeros((120, 160, 3), np.uint8)
    edge[:, 80:] = 200
    grown = drawing.give_room(edge)
    assert grown.shape == (240, 320, 3)
    assert len(np.unique(grown)) > 2  # pixels repeated would have the two values alone


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((1, 20_000), (240, 4096)),  # a strip: reduced, and widened until labels have room
        ((20_000, 1), (4096, 240)),
        ((1, 1), (240, 240)),
        ((5000, 8192), (2500, 4096)),
        ((4096, 3000), (4096, 3000)),
        ((100, 3000), (240, 3000)),
    ],
)
def test_what_is_drawn_on_is_neither_huge_nor_too_narrow(size, drawn):
    image = np.full((*size, 3), 77, np.uint8)
    grown = drawing.give_room(image)
    assert grown.shape == (*drawn, 3)
    assert (grown == 77).all()
    assert drawing.draw_regions(grown, [[0, 0, 1, 1]], ["dog"]).shape == grown.shape


def test_a_picture_is_reduced_in_proportion_or_left_as_it_is():
    assert drawing.at_most(np.zeros((50, 200, 3), np.uint8), 100).shape == (25, 100, 3)
    assert drawing.at_most(GREY, 300) is GREY


def test_a_label_of_many_letters_costs_no_more_than_a_short_one():
    font = drawing._font(30)
    started = time.process_time()
    for letter in "iW":
        cut = drawing._fitting(letter * 20_000, font, 400)
        # The longest that fits, no letter less.
        assert drawing._label_size(cut, font)[0] <= 400
        assert drawing._label_size(cut[:-1] + letter + "…", font)[0] > 400
    assert time.process_time() - started < 1  # 22 s for 4,000 letters, were each length tried
    assert drawing._fitting("short", font, 400) == "short"


def test_control_characters_are_spelled_in_a_label():
    font = drawing._font(20)
    assert drawing._fitting("a\x1b[31mb\n c", font, 900) == "a\\x1b[31mb c"


def test_colors_say_what_is_right_and_captions_have_theirs():
    colors = [drawing.RIGHT, drawing.WRONG]
    drawn = drawing.draw_regions(GREY, [[0.3, 0.3, 0.9, 0.9]], ["cat"], colors, captions=["dog"])
    assert (drawn == drawing.RIGHT).all(axis=-1).any()
    assert (drawn[1, 1] == drawing.WRONG).all()  # the caption stands in the corner


def test_maps_are_upsampled_with_aligned_corners():
    upsampled = drawing._upsample(np.array([[0.0, 1.0], [2.0, 3.0]]), 3, 5)
    np.testing.assert_allclose(upsampled[0], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(upsampled[:, 0], [0, 1, 2])


def test_localization_shows_the_image_and_both_marginals():
    class_map = np.zeros((4, 4))
    class_map[1, 2] = 0.8
    drawn = drawing.draw_localization(
        GREY, class_map, [0.2, 0.4, 0.5, 0.9], "a $ sign_of: 0.1 / 0.9", 0.5, 64
    )
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] == 900
    assert (drawn == (214, 39, 40)).all(axis=-1).sum() > 500  # the box, in red


def test_a_box_that_no_threshold_made_has_no_line_of_one():
    blue = (31, 119, 180)
    dashed = [
        (drawing.draw_localization(GREY, np.eye(4), [0, 0, 1, 1], "", tau, 64) == blue).all(axis=-1).sum()
        for tau in (0.5, None)
    ]
    assert dashed[0] > 100
    assert dashed[1] == 0


def test_a_constant_map_has_marginals_too():
    assert drawing.draw_localization(GREY, np.full((4, 4), 0.3), [0, 0, 1, 1], "", 0.5).shape[1] == 900


def test_a_png_gives_the_image_back():
    drawn = drawing.draw_regions(GREY, [[0, 0, 1, 1]], ["dog"])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(drawing.encode_png(drawn)))), drawn)

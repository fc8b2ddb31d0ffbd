"""Draws pictures for people: an image with the boxes and labels of what the model saw in it.

Images are (H, W, 3) uint8 RGB arrays, boxes ymin xmin ymax xmax as fractions of the image.
"""

import bisect
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mcar_tf.reporting.regions import select_regions
from pipelines.words import printable

Array = npt.NDArray[Any]
Color = tuple[int, int, int]

# Boxes get these colors in this order. They differ clearly from each other and from skin, grass and sky, and are
# bright enough for black letters.
COLORS: tuple[Color, ...] = (
    (255, 213, 0),
    (0, 229, 255),
    (255, 92, 168),
    (118, 255, 3),
    (255, 145, 0),
    (179, 136, 255),
    (255, 255, 255),
    (255, 82, 82),
)
# For a region whose class is in the picture, not in it, or not known. Distinguishable with any colour vision.
RIGHT: Color = (0, 229, 255)
WRONG: Color = (255, 145, 0)
UNCERTAIN: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
MIN_SIDE, MAX_SIDE = 240, 4096  # px of a picture that is drawn on


MOST_LETTERS = 1000  # longest label; no picture has room for more letters


def draw_regions(
    image: Array,
    boxes: npt.ArrayLike,
    titles: Sequence[str],
    colors: Sequence[Color] | None = None,
    captions: Sequence[str] = (),
) -> Array:
    """Frame regions of an image and label them, at the image's own resolution.

    Line width and letters grow with the image, which should have 150 px or more (`give_room`). Labels are placed
    where they hide least: outside their box if there is room, and away from other labels and boxes if possible.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4), fractions of the image.
        titles: the N labels; an empty one leaves its box without a label.
        colors: colors of the boxes, then of the captions; by default distinct colors for boxes, white for captions.
        captions: labels without a box, in the image's corners.

    Returns:
        A new (H, W, 3) uint8 image.
    """
    height, width = image.shape[:2]
    boxes = np.reshape(np.asarray(boxes, np.float64), (-1, 4))
    colors = colors or [COLORS[i % len(COLORS)] for i in range(len(boxes))] + [WHITE] * len(captions)
    line = max(1, round(min(height, width) / 130))
    font = _font(max(9, round(min(height, width) / 18)))
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)

    frames = [_frame(box, height, width) for box in boxes]
    for i, color in enumerate(colors[: len(boxes)]):
        # Boxes that coincide are drawn inside each other, so that each stays visible.
        inset = 2 * line * sum(_nearly_equal(frames[i], other, 2 * line) for other in frames[:i])
        frames[i] = _inset(frames[i], inset)
        edge = max(1, line // 3)  # a thin dark outline around the frame, for bright backgrounds
        draw.rectangle(_inset(frames[i], -edge), outline=BLACK, width=edge)
        draw.rectangle(frames[i], outline=color, width=line)
    placed: list[tuple[int, ...]] = []
    everything = (0, 0, width - 1, height - 1)
    places = [*frames, *[everything] * len(captions)]
    labels = zip(places, [*titles, *captions], colors, strict=True)
    for frame, title, color in labels:
        if title:
            text = _fitting(title, font, width)
            chip = _place_label(_label_size(text, font), frame, (width, height), placed, frames)
            placed.append(chip)
            draw.rectangle(chip, fill=color)
            padding = _padding(font)
            draw.text((chip[0] + padding, chip[1] + padding), text, fill=BLACK, font=font, anchor="lt")
    return np.asarray(canvas)


def make_panel(
    images: Sequence[Array],
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    tile: int = 320,
) -> Array:
    """Put images side by side on one sheet, each fitted into a square without distortion.

    Args:
        images: each (H, W, 3) uint8, of any size.
        captions: a line under each image.
        columns: images per row; by default the sheet is about as wide as high.
        tile: side of the squares in px.

    Returns:
        (rows * (tile + caption), columns * tile, 3) uint8.
    """
    if not images:
        raise ValueError("A panel needs at least one image.")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    font, gap = _font(max(9, tile // 20)), max(2, tile // 64)
    strip = _label_size("x", font)[1] if captions else 0
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * tile, rows * (tile + strip)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        left, top = i % columns * tile, i // columns * (tile + strip)
        fitted = _fit(Image.fromarray(image), tile - 2 * gap)
        sheet.paste(fitted, (left + (tile - fitted.width) // 2, top + (tile - fitted.height) // 2))
        if captions:
            text = _fitting(captions[i], font, tile - 2 * gap)
            draw.text((left + tile // 2, top + tile), text, fill=BLACK, font=font, anchor="mt")
    return np.asarray(sheet)


def make_region_panel(images: Array, outputs: Mapping[str, Array], classes: Sequence[str]) -> Array:
    """The images of a batch side by side, with the regions that are worth showing.

    Args:
        images: (B, S, S, 3) in [0, 255], of any type.
        outputs: the model's outputs for the batch: `global_probs`, `probs`, `boxes`, `box_classes`.
        classes: the C names.

    Returns:
        One (H, W, 3) uint8 image.
    """
    drawn = []
    for i, image in enumerate(np.clip(np.rint(images), 0, 255).astype(np.uint8)):
        regions = select_regions({name: np.asarray(value)[i] for name, value in outputs.items()}, classes)
        drawn.append(
            draw_regions(give_room(image), [region.box for region in regions], [r.title for r in regions])
        )
    return make_panel(drawn)


def at_most(image: Array, side: int) -> Array:
    """A picture with its longer side reduced to `side` px; a smaller picture is returned unchanged."""
    if max(image.shape[:2]) <= side:
        return image
    return np.asarray(_fit(Image.fromarray(image), side))


def give_room(image: Array) -> Array:
    """Bring a picture to a size that can be drawn on.

    A small picture is enlarged by a whole factor, so that labels have room; one with a side of more than `MAX_SIDE`
    is reduced; one that is then narrower than `MIN_SIDE` is widened, which distorts it. Others stay as they are.
    """
    height, width = image.shape[:2]
    factor = min(math.ceil(MIN_SIDE / min(height, width)), MAX_SIDE // max(height, width))
    scale = max(factor, 1) * min(1, MAX_SIDE / max(height, width))
    size = max(round(scale * width), MIN_SIDE), max(round(scale * height), MIN_SIDE)
    if size == (width, height):
        return image
    # Tiny pictures, such as digits of 32 px, keep sharp pixels; photographs are interpolated smoothly.
    how = Image.Resampling.NEAREST if factor > 3 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize(size, how))


def draw_localization(
    image: Array,
    class_map: Array,
    box: npt.ArrayLike,
    title: str,
    tau: float | None,
    image_size: int | None = None,
) -> Array:
    """Draw how a region was found: the class's activation map over the image, its two marginals, the box (Fig. 2).

    Args:
        image: (H, W, 3) uint8.
        class_map: (h, w), the class's activation map after the sigmoid.
        box: (4,), fractions of the image.
        title: the text above the picture.
        tau: the threshold on the normalized marginals that made the box; None if no threshold did.
        image_size: side S of the model's input, at which marginals are taken; None for the image's own sides.

    Returns:
        (about 900, about 900, 3) uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    upsampled = _upsample(class_map, image_size or height, image_size or width)
    ymin, xmin, ymax, xmax = np.asarray(box, np.float64)
    figure = Figure(figsize=(6, 6 * (height + 0.3 * width) / (1.3 * width)), dpi=150, layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 0.3), height_ratios=(0.3 * width / height, 1))
    picture = figure.add_subplot(grid[1, 0])
    picture.imshow(image, extent=(0, 1, 1, 0), aspect="auto")
    picture.imshow(upsampled, extent=(0, 1, 1, 0), aspect="auto", cmap="turbo", alpha=0.4)
    picture.add_patch(_rectangle(xmin, ymin, xmax, ymax))
    picture.set(xticks=[], yticks=[])
    for marginal, where, interval, horizontal in (
        (upsampled.max(axis=0), grid[0, 0], (xmin, xmax), True),
        (upsampled.max(axis=1), grid[1, 1], (ymin, ymax), False),
    ):
        axes = figure.add_subplot(where)
        spread = marginal.max() - marginal.min()
        normalized = (marginal - marginal.min()) / (spread if spread > 0 else 1)
        positions = (np.arange(len(marginal)) + 0.5) / len(marginal)
        lines = [] if tau is None else [tau]
        if horizontal:
            axes.plot(positions, normalized, color="black")
            for line in lines:
                axes.axhline(line, color="tab:blue", linestyle="--")
            axes.axvspan(*interval, color="tab:red", alpha=0.2)
            axes.set(xlim=(0, 1), ylim=(0, 1.05), xticks=[], yticks=[0, *lines, 1])
        else:
            axes.plot(normalized, positions, color="black")
            for line in lines:
                axes.axvline(line, color="tab:blue", linestyle="--")
            axes.axhspan(*interval, color="tab:red", alpha=0.2)
            axes.set(ylim=(1, 0), xlim=(0, 1.05), yticks=[], xticks=[0, *lines, 1])
    figure.suptitle(title, parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def encode_png(image: Array) -> bytes:
    """The image as a PNG file's bytes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return file.getvalue()


def encode_jpeg(image: Array) -> bytes:
    """The image as a JPEG file's bytes, for pages with many photographs."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=88)
    return file.getvalue()


# ------------------------------------------------------------------ geometry of boxes and labels, in pixels

Rectangle = tuple[int, ...]  # left, top, right, bottom, all inside


def _frame(box: Array, height: int, width: int) -> Rectangle:
    """The pixels on the edge of a box, clipped to the image."""
    ymin, xmin, ymax, xmax = np.clip(box, 0, 1)
    left, top = min(int(xmin * width), width - 1), min(int(ymin * height), height - 1)
    return left, top, max(left, math.ceil(xmax * width) - 1), max(top, math.ceil(ymax * height) - 1)


def _inset(frame: Rectangle, by: int) -> Rectangle:
    """The frame, made smaller by up to `by` px on each side, as far as its size allows."""
    left, top, right, bottom = frame
    horizontally, vertically = min(by, (right - left) // 2), min(by, (bottom - top) // 2)
    return left + horizontally, top + vertically, right - horizontally, bottom - vertically


def _nearly_equal(one: Rectangle, other: Rectangle, tolerance: int) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def _place_label(
    size: tuple[int, int],
    frame: Rectangle,
    image: tuple[int, int],
    labels: Sequence[Rectangle],
    frames: Sequence[Rectangle],
) -> Rectangle:
    """The place where a label hides least: first of other labels, then of boxes; else near its box's top left."""
    (width, height), (left, top, right, bottom) = size, frame
    places = [
        (x, y)
        for y in (top - height, bottom + 1, top, bottom + 1 - height)
        for x in (left, right + 1 - width)
    ]
    # In case all of those are taken, also try the places down the left side of the box.
    places += [(left, y) for y in range(top, bottom, height)]

    def hidden(place: Rectangle) -> tuple[int, int]:
        return (
            sum(_overlap(place, other) for other in labels),
            sum(_overlap(place, other) for other in frames),
        )

    def inside(x: int, y: int) -> Rectangle:
        x, y = max(0, min(x, image[0] - width)), max(0, min(y, image[1] - height))
        return x, y, x + width - 1, y + height - 1

    return min((inside(x, y) for x, y in places), key=hidden)


def _overlap(one: Rectangle, other: Rectangle) -> int:
    """Number of pixels that two rectangles have in common."""
    across = min(one[2], other[2]) - max(one[0], other[0]) + 1
    down = min(one[3], other[3]) - max(one[1], other[1]) + 1
    return max(across, 0) * max(down, 0)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)  # type: ignore[return-value]  # Pillow's own, scalable: with a size


def _padding(font: ImageFont.FreeTypeFont) -> int:
    return max(2, round(font.size / 4))


def _label_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Size of a label in pixels, padding included; the height is the same for every text, whatever its letters."""
    ascent, descent = font.getmetrics()
    return math.ceil(font.getlength(text)) + 2 * _padding(font), ascent + descent


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut with an ellipsis if it would be wider than `width` px."""
    text = printable(" ".join(text[:MOST_LETTERS].split()))
    if _label_size(text, font)[0] <= width:
        return text
    # A text is never narrower than its beginning, so bisection finds the longest beginning that fits.
    kept = bisect.bisect_right(
        range(1, len(text)), width, key=lambda count: _label_size(text[:count] + "…", font)[0]
    )
    return text[:kept] + "…"


def _fit(image: Image.Image, side: int) -> Image.Image:
    """The image scaled so that its longer side has `side` px."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Small pictures, such as digits of 32 px, keep sharp pixels.
    return image.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS)


def _upsample(values: Array, height: int, width: int) -> Array:
    """Bilinear upsampling with aligned corners, (h, w) -> (height, width), as in the localizer."""
    rows, columns = np.linspace(0, values.shape[0] - 1, height), np.linspace(0, values.shape[1] - 1, width)
    wide = np.stack([np.interp(columns, np.arange(values.shape[1]), row) for row in values])
    return np.stack([np.interp(rows, np.arange(values.shape[0]), column) for column in wide.T], axis=1)


def _rectangle(xmin: float, ymin: float, xmax: float, ymax: float) -> Any:
    from matplotlib.patches import Rectangle as Patch

    return Patch((xmin, ymin), xmax - xmin, ymax - ymin, fill=False, edgecolor="tab:red", linewidth=3)

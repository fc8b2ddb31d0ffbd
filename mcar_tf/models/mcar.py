"""The two-stream model: from images to class probabilities, and the regions that it looked at (Fig. 1).

Letters: B images, S px a side, C classes, N regions, h x w cells of an activation map of d channels.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mcar_tf.models.arguments import check_choice, checked
from mcar_tf.models.backbones import build_backbone, check_any_backbone
from mcar_tf.models.band import check_looks
from mcar_tf.models.batch_norm import LOCAL_STREAM, check_batch_norm
from mcar_tf.models.boxes import check_jitter, jitter_boxes
from mcar_tf.models.crop import Crop
from mcar_tf.models.heads import Classifier, check_pooling
from mcar_tf.models.keras_internals import pass_on
from mcar_tf.models.localizer import check_localizer, localize
from mcar_tf.models.selection import choose_in_band, worth_a_look
from mcar_tf.models.trainer import Streams, TwoStreamTrainer, check_fusion, fuse_logits, fuse_probs

SELECTIONS = ("top", "bottom", "random")

# Arguments of `MCAR` that are attributes of the same name, beside the backbone.
CONFIG = ("num_classes", "image_size", "glance_size", "local_size", "top_n", "pooling", "localizer", "box_jitter",
          "fusion", "look_band", "look_doubt", "selection", "selection_seed", "name")  # fmt: skip

Outputs = dict[str, tf.Tensor]


@checked
def build_mcar(
    num_classes: int,
    backbone: str | keras.Model = "mobilenet_v2",
    image_size: int = 256,
    pooling: str = "gwp",
    top_n: int = 4,
    tau: float = 0.5,
    weights: str | Path | None = "imagenet",
    *,
    backbone_width: float = 1.0,
    gwp_lambda: float = 0.5,
    csra_temperature: float = 1.0,
    csra_lambda: float = 0.1,
    glance_size: int | None = None,
    local_size: int | None = None,
    localizer: str = "threshold",
    box_spread: float = 1.8,
    min_box_cells: float = 0.0,
    box_jitter: float = 0.0,
    fusion: str = "max",
    look_band: Sequence[float] | None = None,
    look_doubt: float = 0.0,
    batch_norm: str = "shared",
    sync_batch_norm: bool = False,
    selection: str = "top",
    selection_seed: int = 0,
) -> "MCAR":
    """Build a two-stream model with its weights.

    Args:
        num_classes: C.
        backbone: a key of `mcar_tf.models.backbone_table.BACKBONES`; or a network of your own from RGB in [0, 255],
            (B, H, W, 3), to an activation map (B, h, w, d), of which the model gets a copy with its weights.
        image_size: side S of the images in px. The weights fit any size.
        pooling: "gap", "gmp" or "gwp" (13-15), or "csra", `mcar_tf.models.heads.csra`.
        top_n: regions per image, N, from 0 (the plain backbone) to C.
        tau: localization threshold in [0, 1); 0 makes every region the whole image.
        weights: weights of a named backbone: "imagenet", the path of a weights file, or None for random ones.
        backbone_width: factor on the backbone's channels.
        gwp_lambda: weight of the average in GWP, in [0, 1].
        csra_temperature: temperature of CSRA, positive or infinite.
        csra_lambda: weight of CSRA's attention, 0 or more.
        glance_size: side in px, a divisor of `image_size`, to which the global pass reduces the image by averaging
            squares of pixels; regions are cut from the image at full size. None: the global pass sees full size.
        local_size: side of the regions' crops in px; None: the side of the image that the global pass sees.
        localizer: "threshold", the paper's interval of a marginal, or "moments": see `mcar_tf.models.localizer`.
        box_spread: for "moments", half the width of the interval in standard deviations.
        min_box_cells: least side of a box, in cells of the activation map.
        box_jitter: in training, boxes are shifted and scaled at random by up to this share of their sides.
        fusion: "max", or "mean": the sigmoid of the mean of both streams' logits.
        look_band: at inference, only regions of classes whose global probability lies between these two are looked
            at, at most N: see `mcar_tf.models.band`. None: always N regions, as in the paper.
        look_doubt: at inference, only images whose global probabilities leave at least this doubt are looked at
            again, in bits: see `mcar_tf.models.band`. 0: all images, as in the paper.
        batch_norm: moving statistics: "shared" by both streams, "per_stream", or "frozen" at their initial values.
        sync_batch_norm: whether, in training, BatchNorm normalizes with the batch of all replicas.
        selection: which classes' maps become regions: those of highest global probability ("top"), of lowest
            ("bottom"), or random ones ("random"), as in Table V.
        selection_seed: seed of "random" and of `box_jitter`.

    Raises:
        TypeError, ValueError: an argument is unknown, of another type or outside its range; nothing is built yet.
        FileNotFoundError: the weights can't be found or downloaded.
    """
    check_any_backbone(
        backbone,
        backbone_width=backbone_width,
        image_size=image_size,
        glance_size=glance_size,
        local_size=local_size,
        weights=weights,
        batch_norm=batch_norm,
        sync_batch_norm=sync_batch_norm,
    )
    check_pooling(pooling, gwp_lambda, csra_temperature, csra_lambda)
    check_localizer(localizer, tau, box_spread, min_box_cells)
    check_jitter(box_jitter)
    check_fusion(fusion)
    check_looks(look_band, look_doubt, top_n)
    check_batch_norm(batch_norm)
    _check_selection(selection, top_n, num_classes)
    return MCAR(
        build_backbone(
            backbone,
            weights=weights,
            width=backbone_width,
            batch_norm=batch_norm,
            sync_batch_norm=sync_batch_norm,
        ),
        num_classes,
        image_size=image_size,
        glance_size=glance_size or image_size,
        local_size=local_size or glance_size or image_size,
        top_n=top_n,
        pooling={
            "pooling": pooling,
            "gwp_lambda": gwp_lambda,
            "csra_temperature": csra_temperature,
            "csra_lambda": csra_lambda,
        },
        localizer={
            "tau": tau,
            "localizer": localizer,
            "box_spread": box_spread,
            "min_box_cells": min_box_cells,
        },
        box_jitter=box_jitter,
        fusion=fusion,
        look_band=look_band,
        look_doubt=look_doubt,
        selection=selection,
        selection_seed=selection_seed,
    )


def _check_selection(selection: str, top_n: int, num_classes: int) -> None:
    if num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1. Received: {num_classes}")
    if not 0 <= top_n <= num_classes:
        raise ValueError(f"`top_n` must lie in [0, {num_classes}], the number of classes. Received: {top_n}")
    check_choice("selection", selection, SELECTIONS)


@keras.saving.register_keras_serializable("mcar_tf")
class MCAR(TwoStreamTrainer):
    """Looks at the whole image, then at N regions of it with the same network. `build_mcar` checks its arguments.

    `call` gives a dict:

    | output | shape | |
    |---|---|---|
    | `probs` | (B, C) | fused from both streams: their class-wise maximum, or according to `fusion` |
    | `global_probs`, `local_probs` | (B, C) | of each stream; equal if N = 0 |
    | `boxes` | (B, N, 4) | ymin xmin ymax xmax as fractions of the image |
    | `box_classes` | (B, N) int32 | the class whose map pointed at the region |
    | `box_probs` | (B, N) | that class's probability in the region |

    All are float32 except `box_classes`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        image_size: int,
        glance_size: int,
        local_size: int,
        top_n: int,
        pooling: dict[str, Any],
        localizer: dict[str, Any],
        box_jitter: float,
        fusion: str,
        look_band: Sequence[float] | None,
        look_doubt: float,
        selection: str,
        selection_seed: int,
        name: str = "mcar",
    ) -> None:
        # Only the backbone uses mixed precision. Images, maps and probabilities stay float32 here, because lower
        # precisions have too few digits for them: bfloat16 can't tell 256 levels apart.
        super().__init__(name=name, dtype="float32")
        self.backbone = backbone
        self.classifier = Classifier(num_classes)
        self.classifier.build((None, backbone.output_shape[-1]))
        self.num_classes = num_classes
        self.image_size = image_size
        self.glance_size = glance_size
        self.local_size = local_size
        self.top_n = top_n
        self.pooling, self.localizer = pooling, localizer
        self.classify: Callable[[tf.Tensor], tf.Tensor] = functools.partial(
            self.classifier.classify, **pooling
        )
        self.localize: Callable[..., tf.Tensor] = functools.partial(localize, **localizer)
        self.box_jitter = box_jitter
        self.fusion = fusion
        self.look_band = None if look_band is None else (float(look_band[0]), float(look_band[1]))
        self.look_doubt = look_doubt
        self.selection, self.selection_seed = selection, selection_seed
        self.built = True

    def call(
        self,
        images: tf.Tensor,
        training: bool = False,
        boxes: tf.Tensor | None = None,
        looks: tf.Tensor | None = None,
        crop: Crop | None = None,
        regions_at_once: int | None = None,
    ) -> Outputs:
        """Run both passes and fuse them.

        Args:
            images: (B, S, S, 3), RGB in [0, 255].
            training: whether BatchNorm normalizes with each pass's own batch.
            boxes: (B, N, 4) to use in place of the localizer's, to compare two forms of the model.
            looks: (B, N) bool, which of these to look at, in place of what `look_band` and `look_doubt` say; for the
                same comparison.
            crop: function that cuts regions out; None: the one that the model was compiled for.
            regions_at_once: how many regions of an image one local pass takes; None: all of them. With a number,
                shapes are fixed: regions that are not looked at are then computed but not used.
        """
        return self.fuse(
            self.forward(images, training, boxes, looks=looks, crop=crop, regions_at_once=regions_at_once)
        )

    def forward(
        self,
        images: tf.Tensor,
        training: bool,
        boxes: tf.Tensor | None = None,
        *,
        looks: tf.Tensor | None = None,
        first: tuple[tf.Tensor, tf.Tensor] | None = None,
        crop: Crop | None = None,
        regions_at_once: int | None = None,
    ) -> Streams:
        """The global pass, the regions that it points at, and the local pass: for `call` and for the losses.

        `first` is the result of `global_pass`, if that was run before; the other arguments are those of `call`.
        """
        features, global_logits = first or self.global_pass(images, training)
        band = None if training else self.look_band
        box_classes = self.select_classes(global_logits, band)
        if self.top_n == 0:  # the plain backbone
            no_boxes, no_logits = (tf.zeros([tf.shape(images)[0], 0, n]) for n in (4, self.num_classes))
            return Streams({"global": global_logits}, box_classes, no_boxes, no_logits)
        if boxes is None:
            boxes = self.find_boxes(features, box_classes, images)
            if training and self.box_jitter:
                boxes = jitter_boxes(boxes, self.box_jitter, [self.selection_seed, self.updates_done()])
        if training or not (band or self.look_doubt):
            region_logits = self.look_at(images, boxes, training, crop=crop, regions_at_once=regions_at_once)
        else:
            if looks is None:
                looks = worth_a_look(global_logits, box_classes, band, self.look_doubt)
            if regions_at_once is None:
                region_logits = self.look_where(images, boxes, looks, crop)
            else:
                region_logits = self.look_at(images, boxes, crop=crop, regions_at_once=regions_at_once)
            region_logits = tf.where(looks[..., tf.newaxis], region_logits, global_logits[:, tf.newaxis])
        local_logits = tf.reduce_max(region_logits, axis=1)  # (3)
        return Streams({"global": global_logits, "local": local_logits}, box_classes, boxes, region_logits)

    def global_pass(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Activation map A, (B, h, w, d), and global logits x (1), (B, C)."""
        images = tf.cast(images, tf.float32)
        factor = self.image_size // self.glance_size
        if factor > 1:
            images = tf.nn.avg_pool2d(images, factor, factor, "VALID")
        features = self._look(images, training, local_stream=False)
        return features, self.classify(features)

    def glance(self, images: tf.Tensor) -> Outputs:
        """The global pass alone, and its regions: `global_probs`, `boxes` and `box_classes` as in `call`."""
        features, logits = self.global_pass(images, training=False)
        if self.top_n == 0:
            return {"global_probs": tf.sigmoid(logits)}
        box_classes = self.select_classes(logits, self.look_band)
        boxes = self.find_boxes(features, box_classes, images)
        return {"global_probs": tf.sigmoid(logits), "boxes": boxes, "box_classes": box_classes}

    def select_classes(self, global_logits: tf.Tensor, band: tuple[float, float] | None = None) -> tf.Tensor:
        """The N classes whose maps become regions, with those in the band first: (B, C) -> (B, N) int32."""
        if self.selection == "top":
            ranked = global_logits
        elif self.selection == "bottom":
            ranked = -global_logits
        else:
            # The content of the batch is the seed: the draw is repeatable, with no state to keep, save or distribute.
            content = tf.reduce_sum(tf.bitcast(global_logits, tf.int32))
            ranked = tf.random.stateless_uniform(
                tf.shape(global_logits), seed=tf.stack([self.selection_seed, content])
            )
        if band is not None:
            return choose_in_band(ranked, global_logits, band, self.top_n)
        return tf.math.top_k(tf.stop_gradient(ranked), self.top_n).indices

    def find_boxes(self, features: tf.Tensor, box_classes: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """From global to local (section III-B): the map of each selected class points at one region, (B, N, 4)."""
        maps = self.classifier.class_activation_maps(features, box_classes)
        shape = tf.shape(images)
        boxes = self.localize(maps, images.shape[1] or shape[1], images.shape[2] or shape[2])
        return tf.stop_gradient(boxes)

    def look_at(
        self,
        images: tf.Tensor,
        boxes: tf.Tensor,
        training: bool = False,
        *,
        crop: Crop | None = None,
        regions_at_once: int | None = None,
    ) -> tf.Tensor:
        """Logits of the regions given by `boxes`, (B, N, C); the arguments are those of `call`."""
        groups = [boxes]
        if regions_at_once:
            groups = [boxes[:, i : i + regions_at_once] for i in range(0, boxes.shape[1], regions_at_once)]
        logits = [self.local_pass(self.crop(images, group, crop), training) for group in groups]
        return tf.concat(logits, axis=1) if len(logits) > 1 else logits[0]

    def look_where(
        self, images: tf.Tensor, boxes: tf.Tensor, looks: tf.Tensor, crop: Crop | None = None
    ) -> tf.Tensor:
        """Logits (B, N, C) of the regions where `looks`, (B, N), is true, run as one batch; the others' are zero."""
        first = tf.reshape(tf.one_hot(0, tf.size(looks), on_value=True, off_value=False), tf.shape(looks))
        # Not every op takes an empty batch: if there is nothing to look at, one region is computed for nothing.
        places = tf.where(looks | (first & ~tf.reduce_any(looks)))  # (M, 2): image and region
        boxes = tf.gather_nd(boxes, places)[:, tf.newaxis]
        logits = self.look_at(tf.gather(images, places[:, 0]), boxes, crop=crop)
        shape = tf.concat([tf.shape(looks, tf.int64), [self.num_classes]], axis=0)
        return tf.scatter_nd(places, logits[:, 0], shape)

    def crop(self, images: tf.Tensor, boxes: tf.Tensor, form: Crop | None = None) -> tf.Tensor:
        """Cut the regions out for the local pass: (B, N, `local_size`, `local_size`, 3)."""
        return tf.stop_gradient((form or self.crop_form)(images, boxes, self.local_size))

    def local_pass(self, crops: tf.Tensor, training: bool) -> tf.Tensor:
        """Run the same network on every crop: logits (B, N, C)."""
        features = self._look(tf.reshape(crops, [-1, *crops.shape[2:]]), training, local_stream=True)
        regions = crops.shape[1] or tf.shape(crops)[1]
        return tf.reshape(
            self.classify(features), [crops.shape[0] or tf.shape(crops)[0], regions, self.num_classes]
        )

    def _look(self, images: tf.Tensor, training: bool, local_stream: bool) -> tf.Tensor:
        if training and self.rematerialized:
            return self.rematerialized(images, training, local_stream)
        return self.backbone(images, training=training, local_stream=local_stream)

    def fuse(self, streams: Streams) -> Outputs:
        """Probabilities of each stream, of both fused, and of each region's own class."""
        probs = {name: tf.sigmoid(logits) for name, logits in streams.logits.items()}
        global_probs, local_probs = probs["global"], probs.get("local", probs["global"])
        if self.fusion == "max":
            fused_probs = tf.maximum(global_probs, local_probs)
        else:
            fused_probs = tf.sigmoid(fuse_logits(streams, self.fusion))
        own_class = tf.one_hot(streams.box_classes, self.num_classes)
        return {
            "probs": fused_probs,
            "global_probs": global_probs,
            "local_probs": local_probs,
            "boxes": streams.boxes,
            "box_classes": streams.box_classes,
            "box_probs": tf.reduce_sum(own_class * tf.sigmoid(streams.region_logits), axis=-1),
        }

    def fuse_probs(self, global_probs: tf.Tensor, local_probs: tf.Tensor) -> tf.Tensor:
        """Fuse both streams' probabilities, (B, C) each, if only these are known, as for means over several views."""
        return fuse_probs(global_probs, local_probs, self.fusion)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, from which `keras.models.load_model` makes the model again."""
        return {"backbone": keras.saving.serialize_keras_object(self.backbone)} | {
            name: getattr(self, name) for name in CONFIG
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "MCAR":
        """A model made of what `get_config` gave, with random weights."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        pass_on(backbone, LOCAL_STREAM)
        return cls(**config | {"backbone": backbone})

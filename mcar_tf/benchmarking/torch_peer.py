"""Times the same method in PyTorch: one measurement in as JSON, milliseconds out as a line of JSON.

    python mcar_tf/benchmarking/torch_peer.py '{"backbone": "mobilenet_v2", "image_size": 256, "batch_size": 16,
        "top_n": 4, "precision": "mixed_float16", "rounds": 12}'

Eager, channels last, autocast and gradient scaling in half precision: what a PyTorch user would write. The file
needs torch and torchvision and nothing of this project, so that it also runs in an environment of its own.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

CLASSES = 80  # as in `mcar_tf.benchmarking.timing`
WARM_UP = 3
HALF = {"float32": None, "mixed_float16": torch.float16, "mixed_bfloat16": torch.bfloat16}


def main() -> None:
    print(json.dumps(measure(**json.loads(sys.argv[1]))))


def measure(
    backbone: str, image_size: int, batch_size: int, top_n: int, precision: str, rounds: int
) -> dict[str, Any]:
    """Time training steps and inferences of the two-stream model and of its plain backbone, on random images.

    Returns:
        Medians in milliseconds, seconds of the first training step, the peak of the device's memory, and versions.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as TensorFlow does
    model = Mcar(backbone, top_n).to(device, memory_format=torch.channels_last)
    images = torch.rand(batch_size, 3, image_size, image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = (torch.rand(batch_size, CLASSES, device=device) < 0.04).float()
    half = HALF[precision]
    scaler = torch.amp.GradScaler(device, enabled=half == torch.float16)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=1e-4)

    def run(look_twice: bool) -> list[torch.Tensor]:
        with torch.autocast(device, half, enabled=half is not None):
            return model(images, look_twice)

    def train(look_twice: bool) -> None:
        optimizer.zero_grad(set_to_none=True)
        losses = [functional.binary_cross_entropy_with_logits(logits, labels) for logits in run(look_twice)]
        scaler.scale(sum(losses)).backward()
        scaler.step(optimizer)
        scaler.update()

    def infer(look_twice: bool) -> None:
        with torch.inference_mode():
            run(look_twice)

    result: dict[str, Any] = {}
    for mode, function in (("train", train), ("infer", infer)):
        model.train(mode == "train")
        for name, look_twice in (("mcar", True), ("plain", False)):
            times = _time(lambda f=function, twice=look_twice: f(twice), rounds)  # type: ignore[misc]
            result[f"{name}_{mode}_ms"] = 1000 * sorted(times[WARM_UP:])[rounds // 2]
            if (name, mode) == ("mcar", "train"):
                result["first_step_s"] = times[0]
    if device == "cuda":
        result["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {**result, "device": name, "versions": {"torch": torch.__version__}}


def _time(function: Callable[[], None], rounds: int) -> list[float]:
    """Seconds of each call, the device's work included."""
    seconds = []
    for _ in range(WARM_UP + rounds):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


class Mcar(nn.Module):
    """Looks at the images, then at regions of them with the same network; pooling "gwp", tau 0.5."""

    def __init__(self, backbone: str, top_n: int) -> None:
        super().__init__()
        self.network, channels = build_network(backbone)
        self.classifier = nn.Linear(channels, CLASSES)
        self.top_n = top_n

    def forward(self, images: torch.Tensor, look_twice: bool = True) -> list[torch.Tensor]:
        """Logits of each stream, (B, C) each; images: (B, 3, S, S)."""
        features, global_logits = self.look(images)
        if not look_twice:
            return [global_logits]
        with torch.no_grad():
            crops = self.cut_regions(images, features, global_logits)
        logits = self.look(crops)[1].view(len(images), self.top_n, CLASSES)
        return [global_logits, logits.amax(1)]

    def look(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Activation maps (B, d, h, w) and logits (B, C)."""
        features = self.network(images)
        pooled = 0.5 * (features.mean((2, 3)) + features.amax((2, 3)))
        return features, self.classifier(pooled)

    def cut_regions(
        self, images: torch.Tensor, features: torch.Tensor, global_logits: torch.Tensor
    ) -> torch.Tensor:
        """The N most promising regions of each image at its own size: (B * N, 3, S, S)."""
        side = images.shape[-1]
        chosen = global_logits.topk(self.top_n).indices  # (B, N)
        weights, biases = self.classifier.weight.float()[chosen], self.classifier.bias.float()[chosen]
        maps = torch.einsum("bdhw,bnd->bnhw", features.float(), weights) + biases[..., None, None]
        maps = functional.interpolate(
            torch.sigmoid(maps), size=(side, side), mode="bilinear", align_corners=True
        )
        positions = torch.linspace(0, 1, side, device=images.device)

        def sampled(marginal: torch.Tensor) -> torch.Tensor:
            """Where to look along an axis: (B, N, S) in [-1, 1], as `grid_sample` takes it."""
            start, stop = find_interval(marginal)
            pixels = start[..., None] + positions * (stop - 1 - start)[..., None]
            return 2 * pixels / (side - 1) - 1

        x, y = sampled(maps.amax(2)).flatten(0, 1), sampled(maps.amax(3)).flatten(0, 1)
        grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1)
        repeated = images.repeat_interleave(self.top_n, 0)
        crops = functional.grid_sample(repeated, grid, align_corners=True)
        return crops.contiguous(memory_format=torch.channels_last)


def find_interval(marginal: torch.Tensor, tau: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """`mcar_tf.models.localizer.find_interval` in PyTorch: (..., L) -> start and stop, (...) each."""
    length = marginal.shape[-1]
    low, high = marginal.amin(-1, keepdim=True), marginal.amax(-1, keepdim=True)
    above = (marginal - low) / (high - low).clamp(min=1e-30) >= tau
    position = torch.arange(length, device=marginal.device).expand(marginal.shape)
    last_below = position.masked_fill(above, -1).cummax(-1).values
    last_peak = position.masked_fill(marginal != high, -1).cummax(-1).values
    ends = above & ~functional.pad(above[..., 1:], (0, 1))
    width = (position - last_below) * (ends & (last_peak > last_below))
    widest, last = width.max(-1)
    start, stop = last + 1 - widest, last + 1
    constant = (high <= low)[..., 0]
    start = torch.where(constant, -(-length // 8), start)
    stop = torch.where(constant, -(-7 * length // 8), stop)
    shortest = -(-length // 8)
    widened = ((start + stop - shortest) // 2).clamp(0, length - shortest)
    short = stop - start < shortest
    return torch.where(short, widened, start), torch.where(short, widened + shortest, stop)


def build_network(backbone: str) -> tuple[nn.Module, int]:
    """A network from (B, 3, S, S) to activation maps (B, d, h, w) with random weights, and d."""
    if backbone == "tiny_resnet":
        return nn.Sequential(_convolution(3, 16), Block(16, 32), Block(32, 64), Block(64, 128)), 128
    from torchvision import models

    network = getattr(models, backbone.removeprefix("torch_"))(weights=None)
    if hasattr(network, "features"):
        return network.features, network.last_channel
    return nn.Sequential(*list(network.children())[:-2]), network.fc.in_features


class Block(nn.Module):
    """A residual block of `tiny_resnet`."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.first = _convolution(channels, filters)
        self.second = nn.Sequential(
            nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters)
        )
        self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, 2, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c, h, w) -> (B, filters, h / 2, w / 2)."""
        return functional.relu(self.second(self.first(x)) + self.shortcut(x))


def _convolution(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, filters, 3, 2, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
    )


if __name__ == "__main__":
    main()

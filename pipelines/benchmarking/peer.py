"""Load batches as a PyTorch `DataLoader` with Pillow does, to compare our pipeline with it."""

import io
import multiprocessing
import time
from typing import Any

import numpy as np


class PillowLoader:
    """What a PyTorch `DataLoader` with torchvision's PIL transforms does, without torch.

    Each worker process decodes, resizes, mirrors and jitters the pictures of a whole batch with Pillow, and leaves
    them as float32 in memory that it shares with this process.
    """

    def __init__(self, encoded: list[bytes], image_size: int, batch_size: int, workers: int) -> None:
        self._batches = [encoded[i : i + batch_size] for i in range(0, len(encoded), batch_size)]
        self._shape = (batch_size, 3, image_size, image_size)
        self._slots = 2 * workers  # as many batches ahead as DataLoader's prefetch_factor of 2
        context = multiprocessing.get_context("spawn")
        self._memory = [context.RawArray("f", int(np.prod(self._shape))) for _ in range(self._slots)]
        self._pool = context.Pool(workers, _share, (self._memory, self._shape))

    def run_epoch(self) -> float:
        """Load every batch once; return the processor time of the workers in seconds."""
        waiting = [self._submit(number) for number in range(min(self._slots, len(self._batches)))]
        cpu = 0.0
        for number in range(len(self._batches)):
            cpu += waiting.pop(0).get()
            # The batch counts as used now, and its memory is free for the next one.
            if number + self._slots < len(self._batches):
                waiting.append(self._submit(number + self._slots))
        return cpu

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()

    def _submit(self, number: int) -> Any:
        return self._pool.apply_async(_load_batch, (number % self._slots, number, self._batches[number]))


_shared: list[np.ndarray] = []  # in a worker of PillowLoader


def _share(memory: list[Any], shape: tuple[int, ...]) -> None:
    _shared.extend(np.frombuffer(array, np.float32).reshape(shape) for array in memory)


def _load_batch(slot: int, seed: int, encoded: list[bytes]) -> float:
    from PIL import Image, ImageEnhance

    started = time.process_time()
    rng = np.random.default_rng(seed)
    size = _shared[slot].shape[2:]
    for place, picture in enumerate(encoded):
        image: Any = (
            Image.open(io.BytesIO(picture)).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
        )
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
        for which in rng.permutation(3):
            image = enhancers[which](image).enhance(rng.uniform(0.7, 1.3))
        _shared[slot][place] = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
    return time.process_time() - started

"""The peer in PyTorch computes the method that ours does, where torch is installed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcar_tf.benchmarking import torch_peer  # noqa: E402
from mcar_tf.models.crop import crop_and_resize  # noqa: E402
from mcar_tf.models.localizer import find_interval, localize  # noqa: E402


def test_intervals_are_ours():
    draw = np.random.default_rng(0)
    marginals = draw.integers(0, 4, (400, 24)).astype(np.float32)  # with ties, plateaus and several peaks
    marginals[0] = 2.0
    start, stop = torch_peer.find_interval(torch.from_numpy(marginals))
    expected = find_interval(marginals, 0.5)
    np.testing.assert_array_equal(start, expected[0])
    np.testing.assert_array_equal(stop, expected[1])


def test_regions_are_cut_out_as_ours_are():
    torch.manual_seed(0)
    peer = torch_peer.Mcar("tiny_resnet", top_n=2).eval()
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        features, logits = peer.look(images)
        crops = peer.cut_regions(images, features, logits)
        chosen = logits.topk(2).indices
        maps = torch.einsum("bdhw,bnd->bnhw", features, peer.classifier.weight[chosen])
        maps = maps + peer.classifier.bias[chosen][..., None, None]
    boxes = localize(maps.numpy(), 32, 32, 0.5)
    ours = crop_and_resize(images.permute(0, 2, 3, 1).numpy(), boxes, 32)
    np.testing.assert_allclose(
        crops.permute(0, 2, 3, 1).reshape(3, 2, 32, 32, 3).numpy(), ours.numpy(), atol=1e-4
    )

"""Laws of the masked transformer."""

from __future__ import annotations

import torch

from codec.inpainting import Inpainter, InpainterConfig


def test_training_and_inference_attend_alike() -> None:
    """Two kernels, one law: also where windows hang over the edge of the grid."""
    torch.manual_seed(0)
    network = Inpainter(InpainterConfig(latent_dim=4, width=32, depth=2, heads=2))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    words, known = torch.randn(2, 11, 13, 4), torch.rand(2, 11, 13) > 0.3
    level = torch.tensor([5, 10])
    trained = network.hidden(words, known, level)
    with torch.no_grad():
        inferred = network.hidden(words, known, level)
    assert trained.requires_grad and not inferred.requires_grad
    torch.testing.assert_close(trained, inferred, rtol=1e-4, atol=1e-4)
    assert inferred.std() > 0.1

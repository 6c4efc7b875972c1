"""Laws of the masked transformer."""

from __future__ import annotations

from dataclasses import replace

import torch

from codec.inpainting import MEMORY_PARTS, Inpainter, InpainterConfig


def filled(config: InpainterConfig, std: float = 0.2) -> Inpainter:
    """A network that is far from its initialisation."""
    torch.manual_seed(0)
    network = Inpainter(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return network


def test_a_memory_of_nothing_is_none() -> None:
    """Bit for bit, whatever was learnt; and a memory that nothing was learnt of changes nothing."""
    torch.manual_seed(1)
    words, known, level = (
        torch.randn(2, 11, 13, 4),
        torch.rand(2, 11, 13) > 0.3,
        torch.tensor([5, 9]),
    )
    memory = torch.cat([torch.randn(2, 11, 13, 4), torch.rand(2, 11, 13, 1)], dim=-1)
    plain = filled(InpainterConfig(latent_dim=4, width=32, depth=2, heads=2))
    network = Inpainter(replace(plain.config, memory=True)).eval()
    assert {*network.state_dict()} - {*plain.state_dict()} == {
        name for name in network.state_dict() if name.split(".")[0] in MEMORY_PARTS
    }
    network.load_state_dict(network.state_dict() | plain.state_dict())
    shares = torch.zeros(32)
    with torch.no_grad():
        before = plain.hidden(words, known, level)
        same = torch.nn.functional.pad(before, (0, 1))  # estimates no sharper than usual
        assert torch.equal(network.hidden(words, known, level), before)
        assert torch.equal(network.hidden(words, known, level, memory), same)
        for name in MEMORY_PARTS:
            for parameter in network.get_submodule(name).parameters():
                torch.nn.init.normal_(parameter)
        assert torch.equal(network.hidden(words, known, level), before)
        assert torch.equal(network.hidden(words, known, level, torch.zeros_like(memory)), same)
        after = network.hidden(words, known, level, memory)
        assert not torch.allclose(after, same, atol=0.1)
        one = network.hidden(words, known, level, memory * torch.tensor([1, 0]).view(2, 1, 1, 1))
        torch.testing.assert_close(one[0], after[0])
        assert torch.equal(one[1], same[1])
        for given in (before, same):
            scores = network.logits(given[0, 0], words[0, 0], shares[:13])
            torch.testing.assert_close(scores, plain.logits(before[0, 0], words[0, 0], shares[:13]))


def test_training_and_inference_attend_alike() -> None:
    """Two kernels, one law: also where windows hang over the edge of the grid."""
    network = filled(InpainterConfig(latent_dim=4, width=32, depth=2, heads=2))
    words, known = torch.randn(2, 11, 13, 4), torch.rand(2, 11, 13) > 0.3
    level = torch.tensor([5, 10])
    trained = network.hidden(words, known, level)
    with torch.no_grad():
        inferred = network.hidden(words, known, level)
    assert trained.requires_grad and not inferred.requires_grad
    torch.testing.assert_close(trained, inferred, rtol=1e-4, atol=1e-4)
    assert inferred.std() > 0.1

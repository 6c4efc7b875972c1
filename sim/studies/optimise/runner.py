"""`sim optimise`: the search of `search` with real images, packets and streams.

winner.yaml     the winning scenario, for `sim run`
candidates.csv  what theory expects of every way to protect
verified.csv    what real streams gave of the best few, with intervals
outcomes.csv    one row per verified candidate, repeat and image
manifest.json   what ran
figures/        drawn from all of the above
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from channels import read_channel
from codec.concealment import restore
from codec.device import CPU, Device
from codec.threads import one_thread
from sim.errors import UserError
from sim.jobs.store import cached, networks_key, pixel_digest
from sim.media.images import SAMPLES
from sim.metrics import DEFAULT, OPTIONAL
from sim.metrics import metric as metric_of
from sim.metrics.quality import check_metrics, quality
from sim.progress import ProgressCallback, no_progress
from sim.protocol.interleaver import slice_positions
from sim.results.files import (
    MANIFEST,
    OPTIMISATION,
    RESULTS,
    Outcome,
    new_folder,
    write_json,
    write_table,
)
from sim.results.manifest import revision
from sim.scenario.labels import shown_repairs
from sim.scenario.loader import LoadedScenario
from sim.scenario.pictures import refuse_video
from sim.scenario.schema import Scenario, nominal_loss
from sim.scenario.yaml_lines import yaml_text
from sim.statistics import MIN_REPEATS, finite_mean
from sim.studies.compare.comparison import OUTCOMES, Comparison
from sim.studies.compare.config import TOKENS, LoadedComparison, LossCondition, Strategy
from sim.studies.compare.sources import TokenSource, stream
from sim.studies.compare.summary import mean_rows, winner_rows
from sim.studies.optimise.search import (
    LOSSES,
    SLICES,
    Floats,
    Prediction,
    SliceBytes,
    candidates,
    predict,
    shortlist,
)
from sim.version import __version__

CANDIDATES, VERIFIED, WINNER = "candidates.csv", "verified.csv", "winner.yaml"
_MEASURED_SLICES = 32


def optimise(
    loaded: LoadedScenario,
    bpp_wire: float,
    deadline_s: float | None = None,
    metric: str = "ssimulacra2",
    verify: int = 3,
    repeats: int | None = None,
    out: Path | None = None,
    progress: ProgressCallback = no_progress,
    slices: Sequence[int] = SLICES,
    device: Device = CPU,
) -> Outcome:
    """Find the best way to protect a scenario's stream, and write it as a scenario.

    Args:
        loaded: the scenario: its images, channel, frame rate, repeats and seed.
        bpp_wire: byte budget, bits per pixel of everything on the wire.
        deadline_s: playout delay; None: the scenario's.
        metric: what is to be best, of `sim.metrics.DEFAULT` and `OPTIONAL`.
        verify: how many of the best by theory to stream for real, beside the best of each kind.
        repeats: streams of each of these; None: the scenario's, and at least `MIN_REPEATS`.
        out: the folder; None: results/<scenario>-optimised.
        progress: told how far it is.
        slices: numbers of packets per image to try.
        device: where the networks run.

    Raises:
        UserError: nothing fits the budget, or the scenario cannot be optimised.
    """
    refuse_video(loaded, "sim optimise")
    repeats = repeats or max(MIN_REPEATS, loaded.scenario.repeats)
    scenario = _prepared(loaded, deadline_s, metric).model_copy(update={"repeats": repeats})
    if not bpp_wire > 0:
        raise UserError(f"--bpp-wire {bpp_wire}: must be above 0")
    chain = read_channel(scenario.channel)[0].chain()
    if chain is None:
        raise UserError(f"{scenario.name}: channel: theory knows no law of this loss process")
    target = out or RESULTS / f"{scenario.name}-optimised"
    comparison = Comparison(_comparison(loaded, scenario, bpp_wire, []), [metric], progress, device)
    tokens = comparison.tokens
    curves = QualityCurves(tokens, scenario, metric, progress)
    sizes = cache(lambda level, count: measured_bytes(tokens, scenario, level, count))
    how = scenario, chain, bpp_wire, sizes, tokens.model.codebook_sizes, curves
    expected = [predict(candidate, *how) for candidate in candidates(scenario, slices)]
    predictions = [found for found in expected if found is not None]
    if not predictions:
        raise UserError(
            f"--bpp-wire {bpp_wire}: even the smallest codebook in few slices takes more"
        )
    chosen = shortlist(predictions, verify, metric_of(metric).sign)
    best_few = _comparison(loaded, scenario, bpp_wire, chosen)
    with new_folder(target, OPTIMISATION) as folder:
        summary = _verify(best_few, chosen, metric, folder, progress, device)
        write_table(folder / CANDIDATES, [_row(p) for p in predictions])
        summary |= {"metric": metric, "bpp_wire": bpp_wire, "candidates": len(predictions)}
        summary |= {"channel": scenario.channel, "repeats": scenario.repeats}
        best = next(p for p in chosen if p.candidate.label == summary["winner"]["strategy"])
        winner = _winner(loaded, scenario, best, summary["winner"]["level"])
        (folder / WINNER).write_text(_yaml(winner, summary), encoding="utf-8")
        about = {
            "kind": OPTIMISATION,
            "scenario": scenario.model_dump(),
            "seed": scenario.seed,
            "metric": metric,
            "bpp_wire": bpp_wire,
            "weights_fingerprint": tokens.model.fingerprint,
            "device": str(device),
            "version": __version__,
            "revision": revision(),
        }
        write_json(folder / MANIFEST, about)
        from sim.studies.optimise.figures import draw_optimisation

        draw_optimisation(folder)
    return Outcome(target, summary)


class QualityCurves:
    """Mean quality of the images against the share of lost slices, for each level; measured when
    first asked for, kept, and interpolated between."""

    def __init__(
        self,
        tokens: TokenSource,
        scenario: Scenario,
        metric: str,
        progress: ProgressCallback = no_progress,
    ) -> None:
        self._tokens, self._scenario = tokens, scenario
        self._metric, self._progress = metric, progress
        self._means: dict[int, Floats] = {}

    def __call__(self, level: int, shares: Floats) -> Floats:
        """Expected quality at shares of lost slices, float64[n] -> float64[n]."""
        if level not in self._means:
            model = self._tokens.model
            about = {
                "images": [pixel_digest(image.pixels) for image in self._tokens.images],
                "weights": networks_key(model.fingerprint, str(model.device)),
                "interleaver": self._scenario.stream.interleaver,
                "concealer": self._scenario.concealers[0],
                "decoding": self._scenario.decoding.model_dump(),
                "metric": self._metric,
                "level": level,
                "codec": self._scenario.codec.model_dump(include={"patch", "search"}),
                "losses": LOSSES,
            }
            self._means[level] = np.array(cached("curves", about, lambda: self._measure(level)))
        return np.interp(shares, LOSSES, self._means[level])

    def _measure(self, level: int) -> list[float]:
        found = []
        total = len(self._tokens.model.codebook_sizes) * len(LOSSES)
        for number, loss in enumerate(LOSSES):
            done = len(self._means) * len(LOSSES) + number
            self._progress(done, total, f"quality at {level} codewords, {loss:.0%} lost")
            scores = [self._score(level, loss, at) for at in range(len(self._tokens.images))]
            mean = finite_mean(scores)
            found.append(0.0 if np.isnan(mean) else mean)
        return found

    def _score(self, level: int, loss: float, at: int) -> float:
        model, image = self._tokens.model, self._tokens.images[at]
        codec = self._scenario.codec.model_copy(update={"codebook": level})
        indices = self._tokens.frames(codec)[at].index_map
        slices = min(_MEASURED_SLICES, indices.size)
        order = np.random.default_rng([self._scenario.seed, at]).permutation(slices)
        received = np.ones(indices.size, bool)
        grid = (indices.shape[0], indices.shape[1])
        positions = slice_positions(grid, slices, self._scenario.stream.interleaver)
        for lost in order[: round(loss * slices)]:
            received[positions[lost]] = False
        there = received.reshape(indices.shape)
        shown = np.where(there, indices, -1)
        concealer, how = self._scenario.concealers[0], self._scenario.decoding_options()
        size = (image.height, image.width)
        with one_thread():
            pixels = restore(concealer, model, shown, there, level, size, how).image
        return quality(image.pixels, pixels, [self._metric])[self._metric]


def measured_bytes(tokens: TokenSource, scenario: Scenario, level: int, slices: int) -> SliceBytes:
    """Bytes of the images' real packets at a level, cut into so many slices, unprotected."""
    codec = scenario.codec.model_copy(update={"codebook": level})
    bare = scenario.stream.model_copy(
        update={"slices": slices, "fec": None, "arq": None, "packing": 1, "passes": 1}
    )
    update = {"codec": codec, "stream": bare, "repeats": 1, "channel": {"type": "perfect"}}
    (record,) = stream(scenario.model_copy(update=update), tokens.frames(codec), tokens.model)
    longest: dict[int, int] = {}
    for packet in record.packets:
        longest[packet.frame] = max(longest.get(packet.frame, 0), packet.size_bytes)
    images = tokens.images
    return SliceBytes(
        wire=record.ledger.wire_bytes / len(images),
        longest=float(np.mean(list(longest.values()))),
        pixels=float(np.mean([image.width * image.height for image in images])),
        slices=slices,
    )


def _prepared(loaded: LoadedScenario, deadline_s: float | None, metric: str) -> Scenario:
    if metric not in (*DEFAULT, *OPTIONAL):
        raise UserError(f"--metric {metric}: choose one of {', '.join((*DEFAULT, *OPTIONAL))}")
    check_metrics([metric])
    if loaded.scenario.sweep:
        raise UserError(f"{loaded.scenario.name}: has a sweep; optimise one channel at a time")
    scenario = loaded.scenario
    concealer = shown_repairs(scenario.concealers or ["inpaint"])[1]
    stream_section = scenario.stream
    if deadline_s is not None:
        if not 0 < deadline_s <= 3600:
            raise UserError(f"--deadline {deadline_s}: must be above 0 and at most 3600 seconds")
        stream_section = stream_section.model_copy(update={"playout_delay_s": deadline_s})
    update = {"concealers": [concealer], "stream": stream_section, "transport": "virtual"}
    return scenario.model_copy(update=update)


def _comparison(
    loaded: LoadedScenario, scenario: Scenario, bpp_wire: float, chosen: Sequence[Prediction]
) -> LoadedComparison:
    """The candidates as strategies of a comparison through the scenario's own channel."""
    strategies = [
        Strategy(name=p.candidate.label, concealer=scenario.concealers[0]) for p in chosen
    ] or [Strategy(name=TOKENS, concealer=scenario.concealers[0])]
    scenarios = {p.candidate.label: p.candidate.apply(scenario) for p in chosen}
    cell = LossCondition(nominal_loss(scenario.channel), "independent", scenario.channel)
    return LoadedComparison(
        name=scenario.name,
        base=scenario,
        strategies=strategies,
        scenarios=scenarios or {TOKENS: scenario},
        fixed_level=frozenset(),
        bpp_wire=[bpp_wire],
        cells=[cell],
        losses=[cell.loss],
        bursts=["independent"],
        images_base=loaded.images_base,
        model=loaded.model,
    )


def _verify(
    comparison: LoadedComparison,
    chosen: Sequence[Prediction],
    metric: str,
    folder: Path,
    progress: ProgressCallback,
    device: Device,
) -> dict[str, Any]:
    """Stream the chosen; write what came of it; the summary."""
    metrics = [*dict.fromkeys((*DEFAULT, metric))]
    rows, unreached = Comparison(comparison, metrics, progress, device).outcomes(folder)
    if not rows:
        raise UserError(f"{comparison.name}: nothing fits the budget when it is really sent")
    by_label = {p.candidate.label: p for p in chosen}
    means = mean_rows(rows, metrics)
    for row in means:
        expected = by_label[row["strategy"]]
        row |= {"expected_bpp_wire": expected.bpp_wire, "expected_quality": expected.quality}
        row |= {"kind": expected.candidate.kind}
    about = metric_of(metric)
    means.sort(key=lambda row: (-about.sign * round(row[metric], about.digits), row["bpp_wire"]))
    first_two = [row["strategy"] for row in means[:2]]
    (lead,) = winner_rows([row for row in rows if row["strategy"] in first_two], [metric])
    write_table(folder / OUTCOMES, rows)
    write_table(folder / VERIFIED, means)
    return {"winner": means[0], "lead": lead, "verified": means, "cannot_reach": unreached}


def _row(prediction: Prediction) -> dict[str, Any]:
    about = {key: value for key, value in asdict(prediction).items() if key != "candidate"}
    return {**asdict(prediction.candidate), "kind": prediction.candidate.kind, **about}


def _winner(
    loaded: LoadedScenario, scenario: Scenario, best: Prediction, level: int
) -> dict[str, Any]:
    """The winning scenario as plain data; relative paths become absolute."""
    chosen = best.candidate.apply(scenario)
    plain = chosen.model_dump(exclude_none=True, exclude={"sweep", "until"})
    plain["name"] = f"{scenario.name[:90]}-optimised"
    plain["images"] = [
        text if text.split("/")[0] == SAMPLES else str((loaded.images_base / text).absolute())
        for text in scenario.images
    ]
    plain["codec"]["codebook"] = level
    if loaded.model not in (None, "random"):
        plain["codec"]["model"] = str(Path(str(loaded.model)).absolute())
    Scenario.model_validate(plain)
    return plain


def _yaml(winner: dict[str, Any], summary: Mapping[str, Any]) -> str:
    found, metric = summary["winner"], summary["metric"]
    low, high = found[f"{metric}_low"], found[f"{metric}_high"]
    interval = f" ({low:.4g} to {high:.4g})" if np.isfinite(low) else ""
    head = (
        f"# Question: is this the best way to spend {summary['bpp_wire']:g} bits per pixel on the\n"
        f"# wire through this channel? Found by sim optimise: {found['strategy']},\n"
        f"# expected {metric_of(metric).label} {found[metric]:.4g}{interval}.\n#\n"
        "# Look at the bits on the wire and at the quality of the repair.\n\n"
    )
    return head + yaml_text(winner)

"""The run folder of a live stream: that of `sim run`, made of what was received."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.model import Model
from sim.experiment.runner import RecordedStream, write_recorded
from sim.live.receive import Received
from sim.media.frames import Restorer
from sim.media.video_file import VideoFiles
from sim.results.files import (
    MANIFEST,
    OUTPUTS,
    PACKETS,
    RESULTS,
    SUMMARY,
    VIDEOS,
    Outcome,
    new_folder,
    save_png,
    write_json,
    write_table,
)
from sim.results.manifest import manifest, run_id
from sim.scenario.loader import LoadedScenario


def write_received(
    loaded: LoadedScenario,
    model: Model,
    received: Received,
    anomalies: Mapping[str, int],
    out: Path | None,
    save_images: bool,
) -> Outcome | None:
    """Write the run folder of a stream that is over.

    With the originals at hand it is the folder that `sim run` writes, figures and all; without,
    there is nothing to measure against: packets, counts and the repaired images.

    Returns:
        None if no image came whole; then nothing is written.

    Raises:
        UserError: it cannot be written.
    """
    if not received.record.frames:
        return None
    scenario = loaded.scenario
    target = out or RESULTS / scenario.name / f"live-{run_id(scenario, model.fingerprint)}"
    accounted = received.ended in ("complete", "interrupted")  # by the sender, at its end
    about = {
        "ended": received.ended,
        "first_image": received.first,
        "images": len(received.record.frames),
        "images_meant": received.total,
        "anomalies": dict(anomalies),
        "ledger": asdict(received.record.ledger) if accounted else None,
    }
    if received.pictures is None:
        return _without_originals(loaded, model, received, about, target)
    found = received.pictures, received.record, received.references, received.measured
    given = RecordedStream(*found, model.fingerprint, str(model.device), about)
    return write_recorded(loaded, given, target, save_images)


def _without_originals(
    loaded: LoadedScenario,
    model: Model,
    received: Received,
    about: Mapping[str, Any],
    target: Path,
) -> Outcome:
    scenario, record = loaded.scenario, received.record
    restorer = Restorer(model, scenario.concealers, scenario.decoding_options())
    summary = {"scenario": scenario.name, "seed": scenario.seed, "receiver": record.counters}
    with new_folder(target) as folder:
        files = VideoFiles(scenario.stream.fps)
        for ready in record.frames:
            images = restorer.restore(ready).images
            for name, image in images.items():
                number = ready.frame + received.first
                save_png(folder / OUTPUTS / name / f"image-{number:05}.png", image)
            if scenario.video is not None:
                files.add(images)
        for name, content in files.finish().items():
            (folder / VIDEOS).mkdir(exist_ok=True)
            (folder / VIDEOS / name).write_bytes(content)
        write_table(folder / PACKETS, [packet._asdict() for packet in record.packets])
        write_json(folder / SUMMARY, summary)
        what_ran = manifest(scenario, [], model.fingerprint, str(model.device))
        write_json(folder / MANIFEST, {**what_ran, "live": dict(about)})
    return Outcome(target, summary)

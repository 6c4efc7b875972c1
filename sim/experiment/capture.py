"""The stream of a run as a capture for Wireshark.

Streams are the same in virtual time as over a network, so one cell is streamed again, in virtual
time, with an ear on its channels.
"""

from __future__ import annotations

from pathlib import Path

from codec.device import CPU, Device
from codec.files import replacing
from sim.drivers.tap import TappedChannel
from sim.drivers.virtual import run_virtual
from sim.errors import UserError, os_errors
from sim.experiment.plan import ImageAbout, Plan
from sim.media.frames import encode_images, load_model, with_token_importance
from sim.protocol.handshake import StreamStart
from sim.results.pcapng import MAGIC, pcapng
from sim.scenario.labels import values_label
from sim.scenario.loader import LoadedScenario
from sim.scenario.pictures import load_pictures
from sim.stream import CoderTables, StreamSetup
from sim.version import __version__


def check_target(path: Path) -> None:
    """Raise UserError if a capture cannot or should not be written there."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    with os_errors(path, "cannot be read"):
        if path.is_file() and path.stat().st_size:
            with open(path, "rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise UserError(f"{path}: is there already, and is no capture; name another")


def write_capture(loaded: LoadedScenario, path: Path, device: Device | None = None) -> str:
    """Write the stream of the point and repeat whose pictures a run shows.

    Args:
        loaded: the scenario, which has run.
        path: of the pcapng file; a capture that is there is replaced.
        device: where the networks run; None: the CPU.

    Returns:
        Which stream it is, in a few words.

    Raises:
        UserError: images or weights that cannot be used, or a file that cannot be written.
    """
    images = load_pictures(loaded)
    model = load_model(loaded.model, device or CPU)
    about = [ImageAbout.of(image) for image in images]
    point, repeat = Plan(loaded, about, model.fingerprint, str(model.device)).pictured()
    values, scenario = loaded.points[point]
    setup = StreamSetup.of(scenario, CoderTables.of(model), repeat)
    codebook = scenario.codec.codebook
    frames = list(encode_images(model, images, *scenario.codec.tokenizer_key))
    if setup.config.needs_importance:
        frames = [with_token_importance(model, frame, codebook) for frame in frames]

    forth = TappedChannel(setup.channel())
    feedback = setup.feedback()
    back = None if feedback is None else TappedChannel(feedback)
    record = run_virtual(frames, setup.config, forth, setup.key, setup.coders(), feedback=back)

    parts = (scenario.name, values_label(values), f"repeat {repeat}", f"seed {scenario.seed}")
    which = ", ".join(filter(None, parts))
    sizes = tuple((frame.width, frame.height) for frame in frames)
    content = pcapng(
        StreamStart(setup.config, setup.key, sizes).pack(),
        record.packets,
        forth.passages,
        back.passages if back else [],
        which,
        f"lossy-stream-sim {__version__}",
    )
    with os_errors(path, "cannot be written"), replacing(path) as partial:
        partial.write_bytes(content)
    return which

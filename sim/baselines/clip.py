"""A whole video through a video codec with low delay: no frame waits for a later one.

FFmpeg encodes, as a program of its own; PyAV cuts its stream into frames and decodes what arrived
of them, concealed by nothing but the decoder itself. There is a key frame each second; in
"x264-refresh" a column of intra blocks wanders across the picture in that time instead, and every
slice is decodable alone.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.baselines.coded import BaselineError, Coded
from sim.baselines.video import (
    SCALER,
    ffmpeg_encoders,
    ffmpeg_version,
    find_ffmpeg,
    run_ffmpeg,
    trim_av1,
    trim_h264,
    trim_hevc,
    trim_vvc,
)

CLIP_CODECS = ("x264", "x264-refresh", "x265", "svt-av1", "vvc")
"""Every name, whether it is there or not."""

_START = b"\0\0\1"


class CodedFrame(NamedTuple):
    """A frame of a coded video.

    Attributes:
        parts: its slices, each with what stands before it, or all of it as one part.
        key: whether it needs no frame before it.
    """

    parts: list[bytes]
    key: bool


@dataclass(frozen=True)
class ClipCodec:
    """A video codec at one frame rate.

    Attributes:
        name: in tables.
        program: path of FFmpeg.
        fps: frames a second.
        stream: FFmpeg's name of the elementary stream format.
        decoder: PyAV's name of the decoder.
        pixels: FFmpeg's name of the sample format; chroma at half size.
        by_setting: for each quality setting, the encoder's arguments.
        trim: of a frame's bytes, those that a decoder needs.
        slices: parts of a frame that are lost or decoded one by one.
        alone: encode so many frames at once, where the encoder makes no key frames of its own;
            None for all.
    """

    name: str
    program: str
    fps: float
    stream: str
    decoder: str
    pixels: str
    by_setting: tuple[tuple[str, ...], ...]
    trim: Callable[[bytes], tuple[bytes, int]]
    slices: int = 1
    alone: int | None = None

    @property
    def settings(self) -> int:
        """How many quality settings there are."""
        return len(self.by_setting)

    @property
    def identity(self) -> str:
        """What makes bytes and pictures: see `Baseline.identity`."""
        how = self.stream, self.pixels, self.fps, SCALER, self.by_setting, self.alone
        return f"{ffmpeg_version(self.program)} PyAV {version('av')} {how}"

    def encode(self, pixels: NDArray[np.uint8], setting: int) -> Coded:
        """Encode uint8[T,H,W,3], sRGB; an odd side is made even by repeating its last line.

        Raises:
            BaselineError: the encoder failed.
        """
        count, height, width = pixels.shape[:3]
        even = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        size = f"{even.shape[2]}x{even.shape[1]}"
        source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(self.fps))
        target = (*SCALER, "-pix_fmt", self.pixels, "-threads", "1", *self.by_setting[setting])
        arguments = (*source, "-i", "pipe:0", *target, "-f", self.stream, "pipe:1")
        step = self.alone or count
        groups = [even[at : at + step].tobytes() for at in range(0, count, step)]
        file = b"".join(run_ffmpeg(self.name, self.program, arguments, data) for data in groups)
        found = self.frames(file)
        if len(found) != count or any(len(frame.parts) != self.slices for frame in found):
            raise BaselineError(
                f"{self.name}: made {len(found)} frames of {count}, with other than {self.slices} "
                "slices; fewer fit into a picture so low"
            )
        return Coded(file, len(file))

    def frames(self, file: bytes) -> list[CodedFrame]:
        """The frames of an encoded video, in order."""
        import av

        with av.open(io.BytesIO(file), mode="r", format=self.stream) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            return [CodedFrame(self._parts(bytes(p)), p.is_keyframe) for p in packets]

    def _parts(self, frame: bytes) -> list[bytes]:
        data, _ = self.trim(frame)
        if self.slices == 1:
            return [data]
        parts, before = list[bytes](), b""
        for unit in data.split(_START)[1:]:
            before += _START + unit
            if unit[0] & 31 in (1, 5):  # H.264's slices; parameter sets stand before them
                parts.append(before)
                before = b""
        return parts

    def decode(
        self, frames: Sequence[bytes], height: int, width: int
    ) -> list[NDArray[np.uint8] | None]:
        """What the decoder shows, by frame: uint8[height,width,3], or None for nothing.

        Args:
            frames: what is there of each; b"" for nothing.
            height, width: of the video, in pixels.
        """
        import av

        decoder: Any = av.CodecContext.create(self.decoder, "r")
        decoder.thread_count = 1  # what a damaged stream decodes to must not depend on their timing
        shown: list[NDArray[np.uint8] | None] = [None] * len(frames)
        for number, data in enumerate((*frames, None)):
            packet = None
            if data is not None:
                packet = av.Packet(data)
                packet.pts = packet.dts = number
            if data == b"":
                continue
            with contextlib.suppress(av.FFmpegError):  # of a damaged frame it may show nothing
                for picture in decoder.decode(packet):
                    pixels = picture.to_ndarray(format="rgb24")[:height, :width]
                    if picture.pts is not None and pixels.shape == (height, width, 3):
                        shown[picture.pts] = pixels
        return shown


def clip_codec(name: str, fps: float, slices: int = 1) -> ClipCodec | str:
    """A codec of `CLIP_CODECS` for a frame rate, or why it is missing.

    Args:
        name: its name.
        fps: frames a second.
        slices: of every frame, where the codec cuts it into parts that are decoded one by one;
            the others are one part.
    """
    program = find_ffmpeg()
    if program is None:
        return "needs imageio-ffmpeg (pip install 'lossy-stream-sim[bench]')"
    if find_spec("av") is None:
        return "needs PyAV (pip install 'lossy-stream-sim[video]')"
    second = max(1, round(fps))
    one = "sliced-threads=0:threads=1:scenecut=0"
    x264 = ("-c:v", "libx264", "-preset", "slow", "-tune", "zerolatency", "-x264-params")
    x265 = ("-c:v", "libx265", "-preset", "medium", "-tune", "zerolatency", "-x265-params")
    av1 = ("-c:v", "libsvtav1", "-preset", "6", "-g", str(second), "-svtav1-params")
    vvc = ("-c:v", "libvvenc", "-preset", "faster", "-qpa", "0", "-vvenc-params")
    keys = f"keyint={second}:min-keyint={second}"
    wander = f"keyint={second}:intra-refresh=1:slices={slices}:{one}"
    quiet = "log-level=none:info=0:pools=1:frame-threads=1:scenecut=0:bframes=0:open-gop=0"
    ahead = "gopsize=8:picreordering=0:poc0idr=1:refreshtype=none:intraperiod=1000:threads=1"

    def rates(head: Sequence[str], worst: int, rest: str) -> tuple[tuple[str, ...], ...]:
        """A setting for each quarter of a constant rate factor."""
        return tuple((*head, f"crf={n / 4}:{rest}") for n in range(4 * worst, 39, -1))

    h264 = program, fps, "h264", "h264", "yuv420p"
    hevc = program, fps, "hevc", "hevc", "yuv420p"
    obu = program, fps, "obu", "libdav1d", "yuv420p"
    h266 = program, fps, "vvc", "vvc", "yuv420p10le"
    qps = tuple((*vvc, ahead, "-qp", str(qp)) for qp in range(55, 16, -1))
    codecs = (
        ClipCodec("x264", *h264, rates(x264, 51, f"{keys}:{one}"), trim_h264),
        ClipCodec("x264-refresh", *h264, rates(x264, 51, wander), trim_h264, slices),
        ClipCodec("x265", *hevc, rates(x265, 51, f"{keys}:{quiet}"), trim_hevc),
        ClipCodec("svt-av1", *obu, rates(av1, 63, "pred-struct=1:lp=1"), trim_av1),
        ClipCodec("vvc", *h266, qps, trim_vvc, alone=second),
    )
    codec = next(codec for codec in codecs if codec.name == name)
    encoder = codec.by_setting[0][1]
    if encoder not in ffmpeg_encoders(program):
        return f"this FFmpeg has no {encoder}"
    return codec

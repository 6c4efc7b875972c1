"""One picture through the intra coding of a video codec, by FFmpeg as a program of its own.

Files are bare elementary streams: the least that a user could store. Parameter sets are counted in
the file, not in the payload; access unit delimiters and encoder messages are taken out of both.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim.baselines.coded import BaselineError, Coded

TIMEOUT_S = 600
SCALER = ("-sws_flags", "lanczos+accurate_rnd+full_chroma_int+full_chroma_inp")


@dataclass(frozen=True)
class VideoCodec:
    """A video codec, for one picture.

    Attributes:
        name: in tables.
        program: path of FFmpeg.
        stream: FFmpeg's name of the elementary stream format.
        pixels: FFmpeg's name of the sample format; chroma at half size.
        by_setting: for each quality setting, the encoder's arguments.
        trim: file -> (file without what a decoder can do without, bytes of coded picture).
    """

    name: str
    program: str
    stream: str
    pixels: str
    by_setting: tuple[tuple[str, ...], ...]
    trim: Callable[[bytes], tuple[bytes, int]]

    @property
    def settings(self) -> int:
        """How many quality settings there are."""
        return len(self.by_setting)

    @property
    def identity(self) -> str:
        """What makes the bytes: see `Baseline.identity`."""
        return (
            f"{ffmpeg_version(self.program)} {self.stream} {self.pixels} {SCALER} {self.by_setting}"
        )

    def encode(self, pixels: NDArray[np.uint8], setting: int) -> Coded:
        """See `Baseline.encode`. An odd side is made even by repeating its last line."""
        height, width = pixels.shape[:2]
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        size = f"{even.shape[1]}x{even.shape[0]}"
        source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-i", "pipe:0")
        target = (
            *SCALER,
            "-pix_fmt",
            self.pixels,
            *self.by_setting[setting],
            "-f",
            self.stream,
        )
        file = run_ffmpeg(
            self.name, self.program, (*source, "-frames:v", "1", *target, "pipe:1"), even.tobytes()
        )
        if not file:
            raise BaselineError(f"{self.name}: the encoder wrote nothing")
        return Coded(*self.trim(file))

    def decode(self, file: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """See `Baseline.decode`."""
        rows, columns = height + height % 2, width + width % 2
        # one thread: what a damaged file decodes to must not depend on their timing
        arguments = ("-threads", "1", "-f", self.stream, "-i", "pipe:0", "-frames:v", "1", *SCALER)
        raw = run_ffmpeg(
            self.name,
            self.program,
            (*arguments, "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"),
            file,
        )
        if len(raw) != rows * columns * 3:
            raise BaselineError(f"{self.name}: decoded to {len(raw)} bytes")
        return np.frombuffer(raw, np.uint8).reshape(rows, columns, 3)[:height, :width].copy()


def run_ffmpeg(name: str, program: str, arguments: Sequence[str], data: bytes) -> bytes:
    """What an FFmpeg writes that is fed so many bytes; raises BaselineError with the codec's
    name."""
    command = [program, "-hide_banner", "-loglevel", "error", *arguments]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BaselineError(f"{name}: {error}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["failed"]
        raise BaselineError(f"{name}: {lines[0]}")
    return done.stdout


def video_codecs() -> tuple[list[VideoCodec], dict[str, str]]:
    """Those that an FFmpeg on this machine can write, and why the others are missing."""
    program = find_ffmpeg()
    if program is None:
        why = "needs imageio-ffmpeg (pip install 'lossy-stream-sim[bench]')"
        return [], dict.fromkeys(("vvc", "av1", "x265"), why)
    vvc = ("-c:v", "libvvenc", "-preset", "medium", "-qpa", "0")
    av1 = ("-c:v", "libaom-av1", "-still-picture", "1", "-cpu-used", "3", "-tune", "ssim")
    x265 = ("-c:v", "libx265", "-preset", "slower", "-x265-params")
    quiet = "log-level=none:info=0"
    by_qp = tuple((*vvc, "-qp", str(qp)) for qp in range(63, 9, -1))
    by_crf = tuple((*av1, "-b:v", "0", "-crf", str(crf)) for crf in range(63, 4, -1))
    by_half_crf = tuple((*x265, f"{quiet}:crf={crf / 2}") for crf in range(102, 9, -1))
    there, found, missing = ffmpeg_encoders(program), list[VideoCodec](), dict[str, str]()
    for codec in (
        VideoCodec("vvc", program, "vvc", "yuv420p10le", by_qp, trim_vvc),
        VideoCodec("av1", program, "obu", "yuv420p", by_crf, trim_av1),
        VideoCodec("x265", program, "hevc", "yuv420p", by_half_crf, trim_hevc),
    ):
        if (encoder := codec.by_setting[0][1]) in there:
            found.append(codec)
        else:
            missing[codec.name] = f"this FFmpeg has no {encoder}"
    return found, missing


def find_ffmpeg() -> str | None:
    """The FFmpeg that imageio-ffmpeg brings, or else the system's."""
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return shutil.which("ffmpeg")


@lru_cache(maxsize=4)
def ffmpeg_version(program: str) -> str:
    """The first line that an FFmpeg says of itself."""
    command = [program, "-version"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return program
    return done.stdout.decode(errors="replace").partition("\n")[0]


@lru_cache(maxsize=4)
def ffmpeg_encoders(program: str) -> frozenset[str]:
    """Names of the encoders that an FFmpeg was built with."""
    command = [program, "-hide_banner", "-encoders"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    lines = (line.split() for line in done.stdout.decode(errors="replace").splitlines())
    return frozenset(words[1] for words in lines if len(words) > 1)


def trim_vvc(file: bytes) -> tuple[bytes, int]:
    """H.266 Annex B: NAL units without delimiters (20) and messages (23, 24); payload: slices."""
    return _trim_nal(file, lambda nal: nal[1] >> 3, {20, 23, 24}, 12)


def trim_h264(file: bytes) -> tuple[bytes, int]:
    """H.264 Annex B: NAL units without delimiters (9) and encoders' messages (user data in 6);
    payload: slices."""
    return _trim_nal(file, lambda nal: 9 if nal[:2] == b"\6\5" else nal[0] & 31, {9}, 6)


def trim_hevc(file: bytes) -> tuple[bytes, int]:
    """H.265 Annex B: NAL units without delimiters (35) and messages (39, 40); payload: slices."""
    return _trim_nal(file, lambda nal: nal[0] >> 1 & 0x3F, {35, 39, 40}, 32)


def trim_av1(file: bytes) -> tuple[bytes, int]:
    """AV1 low-overhead stream (5.3): without temporal delimiters (2), metadata (5) and padding
    (15); payload: frames, frame headers and tile groups (3, 4, 6)."""
    kept, payload, offset = bytearray(), 0, 0
    while offset < len(file):
        kind, start = file[offset] >> 3 & 15, offset
        offset += 2 if file[offset] & 4 else 1
        size, place = 0, 0
        while True:
            byte = file[offset]
            size |= (byte & 0x7F) << 7 * place
            offset, place = offset + 1, place + 1
            if byte < 0x80:
                break
        offset += size
        if kind in (5, 15):
            continue
        kept += file[start:offset]
        payload += size if kind in (3, 4, 6) else 0
    return bytes(kept), payload


def _trim_nal(
    file: bytes, kind: Callable[[bytes], int], useless: set[int], first_other: int
) -> tuple[bytes, int]:
    """Keep the useful NAL units, three-byte start codes between them; count those of slices."""
    units = [unit.rstrip(b"\0") for unit in file.split(b"\0\0\1")]
    units = [unit for unit in units if len(unit) > 2 and kind(unit) not in useless]
    payload = sum(len(unit) for unit in units if kind(unit) < first_other)
    return b"".join(b"\0\0\1" + unit for unit in units), payload

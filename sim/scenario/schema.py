"""What a scenario may say: the models of every section.

`sim.scenario.loader` reads them from YAML and tells mistakes by file and line.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, LiteralString, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from channels import ChannelParameterError, read_channel
from channels.spec import spec_of_text
from channels.theory import loss_rate
from codec.decoding import MAX_STEPS, Decoding, FillMode, Order
from sim.media.capture import LONGER_SIDE
from sim.metrics import DEFAULT, TEMPORAL, MetricName
from sim.protocol.config import StreamConfig, StreamConfigError
from sim.protocol.protection import ArqConfig, FecConfig
from sim.scenario.json_schema import ChannelSchema, SweepSchema

Entropy = Literal["fixed", "static", "context"]
Interleaver = Literal["raster", "checkerboard", "low_discrepancy", "random"]
FecCode = Literal["reed_solomon", "xor", "raptorq"]
ArqOrder = Literal["first", "hardest"]
VideoConcealer = Literal["previous", "previous_or_average", "inpaint_memory"]
Concealer = Literal[
    "none",
    "most_frequent",
    "nearest",
    "neighbour_average",
    "median",
    "telea",
    "biharmonic",
    "inpaint",
    VideoConcealer,
]
Patch = Literal[16, 20, 24, 32]
CodebookSize = Literal[8, 16, 32, 64, 128, 256, 512, 1024, 2048]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NAME_RULE = (
    "must start with a letter or digit and go on with those, dots, dashes and underscores, at most "
    "100 in all"
)

CLEAN = "clean"
"""The row of a decode without loss, beside those of the concealers."""


def _mistake(kind: LiteralString, problem: str, **where: str) -> PydanticCustomError:
    """What pydantic cannot see; `sim.scenario.loader.explain` reads kind, problem and where."""
    return PydanticCustomError(kind, "{problem}", {"problem": problem, **where})


class Section(BaseModel):
    """Strict: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TokenizerKey(NamedTuple):
    """What an image's tokens depend on, besides the image and the weights; see `CodecSection`."""

    codebook_size: int
    patch: int
    search: int
    hysteresis: float


class CodecSection(Section):
    """How an image becomes bytes."""

    codebook: CodebookSize = Field(1024, description="codewords K; log2(K) bits a token at most")
    patch: Patch = Field(
        16, description="pixels a token stands for in each direction; more = fewer tokens"
    )
    search: int = Field(
        0, ge=0, le=256, description="steps in which the sender seeks better tokens; 16 is plenty"
    )
    hysteresis: float = Field(
        0,
        ge=0,
        le=1,
        description="of a video: a token stays that of the frame before unless another is nearer "
        "by more than this, in squared distance of unit vectors; docs/video.md",
    )
    entropy: Entropy = Field("static", description="coder of a slice's tokens")
    enhance: bool = Field(
        False, description="let Real-ESRGAN, where installed, enlarge what is decoded; slow"
    )
    model: str | None = Field(
        None, description="folder of weights, relative to this file; left out, those that ship"
    )

    @property
    def tokenizer_key(self) -> TokenizerKey:
        """What an image's tokens depend on."""
        return TokenizerKey(self.codebook, self.patch, self.search, self.hysteresis)


class VideoSection(Section):
    """A video file or a camera instead of images; its frames are taken at stream.fps."""

    file: str | None = Field(
        None, description="relative to this file; samples/book = the clip that ships"
    )
    camera: int | None = Field(
        None, ge=0, description="number of a camera instead, for sim demo, send and page"
    )
    size: int = Field(LONGER_SIDE, ge=16, le=8192, description="pixels of the longer side at most")
    first: int = Field(0, ge=0, description="frame of the file to begin with, from 0")
    frames: int | None = Field(
        None, ge=1, description="how many; left out, all of a file, 60 of a camera"
    )

    @model_validator(mode="after")
    def _one_source(self) -> VideoSection:
        if (self.file is None) == (self.camera is None):
            raise _mistake("video", "give either file or camera", key="video")
        return self


class FecSection(Section):
    """Parity packets: erasure-coded blocks, across images."""

    code: FecCode = Field("reed_solomon", description="erasure code; raptorq needs that extra")
    data: int = Field(ge=1, le=255, description="media packets in a block")
    parity: int = Field(ge=0, le=254, description="parity packets in a block; 0 = none")
    depth: int = Field(
        1, ge=1, le=255, description="blocks interleaved: a block's packets are so far apart"
    )
    unequal: bool = Field(
        False, description="more of the parity for the slices that are hardest to conceal"
    )

    def config(self) -> FecConfig | None:
        """What sender and receiver are told."""
        return FecConfig(**self.model_dump()) if self.parity else None


class ArqSection(Section):
    """Retransmission of what the receiver misses."""

    retries: int = Field(1, ge=0, le=16, description="requests for one packet; 0 = none")
    delay_s: float = Field(
        0.05, ge=0.001, le=3600, allow_inf_nan=False, description="seconds a request travels"
    )
    wait_s: float = Field(
        0.01,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="seconds to wait beyond a packet's estimated arrival",
    )
    order: ArqOrder = Field("first", description="which missing packets are sent again first")
    budget: float = Field(
        1.0, gt=0, le=16, description="most retransmissions of an image, as a share of its packets"
    )
    loss: float = Field(0.0, ge=0, le=1, description="share of requests that get lost")

    def config(self) -> ArqConfig | None:
        """What sender and receiver are told."""
        return ArqConfig(**self.model_dump()) if self.retries else None


class StreamSection(Section):
    """How bytes become packets, and when they are sent and due."""

    slices: int = Field(32, ge=1, le=256, description="packets per image, each decodable alone")
    interleaver: Interleaver = Field("low_discrepancy", description="which tokens share a packet")
    fps: float = Field(2.0, gt=0, le=1000, allow_inf_nan=False, description="images per second")
    playout_delay_s: float = Field(
        1.0, ge=0, le=3600, allow_inf_nan=False, description="seconds from capture to deadline"
    )
    mtu: int = Field(1500, ge=64, le=65_507, description="most bytes in a datagram")
    packing: int = Field(
        1, ge=1, le=64, description="images that share packets: a slice of each in every packet"
    )
    passes: int = Field(1, ge=1, le=16, description="how often every packet is sent")
    refresh: int | None = Field(
        None,
        ge=2,
        le=65_535,
        description="of a video, send tokens that have changed, and each once in so many frames; "
        "left out, all in every frame",
    )
    receivers: int = Field(
        1, ge=1, le=64, description="receptions, each with losses of its own, that are merged"
    )
    fec: FecSection | None = Field(None, description="parity packets; left out, none")
    arq: ArqSection | None = Field(None, description="retransmission; left out, none")


class DecodingSection(Section):
    """How the transformer fills a grid."""

    order: Order = Field("confidence", description="what is filled first, in several passes")
    steps: int = Field(1, ge=1, le=MAX_STEPS, description="passes of the transformer")
    words: FillMode = Field(
        "soft", description="decode the mean of all codewords by their probabilities, or the best"
    )


class UntilSection(Section):
    """When a point has been repeated often enough (`sim.statistics.repeats_to_go`)."""

    ci: float = Field(
        gt=0,
        allow_inf_nan=False,
        description="half width of the 95% interval, in the metric's unit",
    )
    metric: MetricName | Literal["token_accuracy", "loss"] = Field(
        "psnr_db", description="whose mean, of every repair; loss = share of tokens lost"
    )
    max_repeats: int = Field(100, ge=2, le=10_000, description="give up here")


class Scenario(Section):
    """One experiment."""

    name: str = Field(
        json_schema_extra={"pattern": f"^{NAME.pattern}$"},
        description="names the results folder; the file's own name if left out",
    )
    images: list[str] = Field(
        ["samples"],
        min_length=1,
        description="files, folders or globs, relative to this file; samples = those that ship",
    )
    video: VideoSection | None = Field(
        None, description="frames of a video or a camera instead of images; left out, none"
    )
    codec: CodecSection = CodecSection()
    stream: StreamSection = StreamSection()
    channel: Annotated[dict[str, Any], ChannelSchema] = Field({"type": "perfect"})
    transport: Literal["zeromq", "udp", "virtual"] = Field(
        "zeromq",
        description="two processes over ZeroMQ or UDP, or one in virtual time: same results",
    )
    pace: float = Field(
        1.0,
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="live: wall seconds per second of the stream; 0 = as fast as possible",
    )
    concealers: list[Concealer] = Field(
        ["none", "neighbour_average", "inpaint"],
        description="repairs to compare on the same losses; [] studies the channel alone",
    )
    decoding: DecodingSection = DecodingSection()
    metrics: list[MetricName] = Field(
        [*DEFAULT],
        min_length=1,
        description="what is measured of every image; lpips_vgg and dists need weights that do "
        "not ship (docs/metrics.md)",
    )
    repeats: int = Field(1, ge=1, le=10_000, description="streams per point, each its own losses")
    seed: int = Field(1, ge=0, lt=2**63, description="everything random follows from it")
    sweep: Annotated[dict[str, Any], SweepSchema] = Field({})
    until: UntilSection | None = Field(
        None, description="add repeats to each point until its means are this certain"
    )

    @field_validator("channel", mode="before")
    @classmethod
    def _channel_of_text(cls, given: Any) -> Any:
        try:
            return spec_of_text(given) if isinstance(given, str) else given
        except ChannelParameterError as error:
            raise _mistake("channel", error.problem, parameter="") from None

    @field_validator("channel")
    @classmethod
    def _channel(cls, spec: dict[str, Any]) -> dict[str, Any]:
        try:
            read_channel(spec)
        except ChannelParameterError as error:
            raise _mistake("channel", error.problem, parameter=error.parameter) from None
        return spec

    @model_validator(mode="after")
    def _until(self) -> Scenario:
        known = (*self.metrics, "token_accuracy", "loss")
        if self.until is not None and self.until.metric not in known:
            problem = f"until.metric {self.until.metric} is not among the metrics measured"
            raise _mistake("until", problem)
        return self

    @model_validator(mode="after")
    def _of_a_video(self) -> Scenario:
        for key, names in (("concealers", get_args(VideoConcealer)), ("metrics", TEMPORAL)):
            for name in getattr(self, key):
                if name in names and self.video is None:
                    problem = f"{name} looks at the frame before: it needs a section video"
                    raise _mistake("video", problem, key=key)
        return self

    @model_validator(mode="after")
    def _stream(self) -> Scenario:
        wanted = {"refresh": self.stream.refresh, "hysteresis": self.codec.hysteresis}
        for key, value in wanted.items():
            if value and self.video is None:
                problem = f"{key} looks at the frame before: it needs a section video"
                raise _mistake("stream", problem, parameter=key)
        try:
            self.stream_config()
        except StreamConfigError as error:
            raise _mistake("stream", error.message, parameter=error.parameter) from None
        return self

    def decoding_options(self) -> Decoding:
        """How grids are filled and decoded."""
        how = self.decoding
        return Decoding(how.order, how.steps, how.words, self.codec.enhance)

    def stream_config(self) -> StreamConfig:
        """What sender and receiver are told."""
        stream = self.stream
        return StreamConfig(
            codebook_size=self.codec.codebook,
            entropy=self.codec.entropy,
            patch=self.codec.patch,
            **stream.model_dump(exclude={"receivers", "fec", "arq"}),
            fec=stream.fec.config() if stream.fec else None,
            arq=stream.arq.config() if stream.arq else None,
        )

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise PydanticCustomError("name", NAME_RULE)
        return name

    @field_validator("images", mode="before")
    @classmethod
    def _one_name(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @field_validator("concealers", "metrics")
    @classmethod
    def _once(cls, names: list[str], about: ValidationInfo) -> list[str]:
        if len(set(names)) < len(names):
            what = str(about.field_name).removesuffix("s")
            raise PydanticCustomError("repeated", "names one {what} twice", {"what": what})
        return names


SWEEPABLE = tuple(
    name
    for name, field in Scenario.model_fields.items()
    if isinstance(field.default, Section) or name == "channel"
)
"""Sections whose keys a sweep may vary."""


def with_values(raw: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a raw scenario with dotted keys set, in order; missing sections are created.

    Raises:
        KeyError: a dotted key leads through something that is not a mapping.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(raw))
    for dotted, value in values.items():
        *sections, last = dotted.split(".")
        place = changed
        for name in sections:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise KeyError(name)
        place[last] = copy.deepcopy(value)
    return changed


def nominal_loss(channel: Mapping[str, Any]) -> float:
    """The loss rate that a channel section stands for; 0 where theory gives none (a script)."""
    chain = read_channel(channel)[0].chain()
    return 0.0 if chain is None else float(loss_rate(chain))

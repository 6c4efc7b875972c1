"""`sim codec`: images <-> files, and the comparison with other codecs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from codec.files import replacing
from sim.cli.device import DeviceName, DtypeName, chosen_device
from sim.errors import UserError
from sim.progress import print_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sim.baselines import Counted
    from sim.media.token_file import ImageCodec

T = TypeVar("T")

codec_app = typer.Typer(no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", "-o", help="File, or folder for a folder.")]
ModelName = Annotated[
    str | None, typer.Option("--model", help="Folder of weights. Default: those that ship.")
]
Entropy = Annotated[str, typer.Option(help="fixed, static or context.")]
Patch = Annotated[int, typer.Option(help="Pixels a token stands for, each way: more is smaller.")]
Search = Annotated[
    int, typer.Option(help="Steps in which better tokens are sought: slower; 16 is plenty.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print only a summary, as JSON.")]


@codec_app.command()
def encode(
    input_: Annotated[
        Path, typer.Argument(metavar="INPUT", help="An image, or a folder.", show_default=False)
    ],
    out: Out,
    codebook: Annotated[int, typer.Option(help="Codebook size: more is better and larger.")] = 1024,
    patch: Patch = 16,
    search: Search = 0,
    entropy: Entropy = "static",
    slices: Annotated[
        int, typer.Option(min=1, max=256, help="Packets; each that is damaged costs its share.")
    ] = 1,
    model: ModelName = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    as_json: AsJson = False,
) -> None:
    """Write each image as a small file of tokens (.tok)."""
    from sim.media.images import load_images

    images = load_images([str(input_.absolute())], Path())
    codec = _codec(model, device, dtype)
    from sim.media.token_file import EXTENSION

    codec.check(codebook, entropy, patch, search)
    targets = _targets(input_, out, [image.name for image in images], EXTENSION)
    from sim.progress import progress_bar

    rows = []
    with progress_bar("encode") as progress:
        for number, (image, target) in enumerate(zip(images, targets, strict=True)):

            def searched(share: float, number: int = number, name: str = image.name) -> None:
                progress(100 * number + int(100 * share), 100 * len(images), name)

            searched(0.0)
            settings = codebook, entropy, slices, patch, search
            done = codec.encode(image.pixels, *settings, progress=searched)
            _write(target, done.file)
            bpp = 8 * len(done.file) / (image.width * image.height)
            rows.append(
                {
                    "image": str(image.path),
                    "file": str(target),
                    "file_bytes": len(done.file),
                    "payload_bytes": done.payload_bytes,
                    "bpp": bpp,
                }
            )
            if not as_json:
                typer.echo(f"{target}: {len(done.file)} bytes, {bpp:.4f} bits per pixel")
    if as_json:
        print_json({**_made_by(codec), "files": rows})


@codec_app.command()
def decode(
    input_: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A .tok file, or a folder.", show_default=False)
    ],
    out: Out,
    concealer: Annotated[
        str, typer.Option(help="What fills in the tokens of damaged packets.")
    ] = "inpaint",
    model: ModelName = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    as_json: AsJson = False,
) -> None:
    """Write each token file's image. PNG, or what the output's ending says."""
    codec = _codec(model, device, dtype)
    from codec.concealment import CONCEALERS
    from codec.pixel_repair import RepairMissing, check_installed
    from sim.media.token_file import EXTENSION

    if concealer not in CONCEALERS:
        raise UserError(f"--concealer {concealer}: choose one of {', '.join(CONCEALERS)}")
    try:
        check_installed(concealer)
    except RepairMissing as error:
        raise UserError(f"--concealer: {error}") from None
    files = _token_files(input_, EXTENSION)
    targets = _targets(input_, out, [path.stem for path in files], ".png")
    for path, target in zip(files, targets, strict=True):  # refuse before anything is written
        _format(target)
        _about(path, codec.read, _read(path))
    rows = []
    for path, target in zip(files, targets, strict=True):
        done = _about(path, lambda data: codec.decode(data, concealer), _read(path))
        _save(target, done.image)
        rows.append(
            {
                "file": str(path),
                "image": str(target),
                "packets": done.packets,
                "packets_lost": done.lost,
            }
        )
        if done.lost:
            typer.echo(
                f"{path}: {done.lost} of {done.packets} packets damaged, "
                f"filled in by {done.concealer}",
                err=True,
            )
        if not as_json:
            typer.echo(str(target))
    if as_json:
        print_json({**_made_by(codec), "files": rows})


@codec_app.command()
def bench(
    images: Annotated[str, typer.Option(help="Image, folder or glob, or the word samples.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    metrics: Annotated[
        str, typer.Option(help="Such as psnr_db,lpips. Default: all that can be measured here.")
    ] = "",
    levels: Annotated[
        str, typer.Option(help="Codebook sizes, with patch: 8,64,512@24. Default: all, at 16.")
    ] = "",
    codecs: Annotated[str, typer.Option(help="Other codecs: jpeg,vvc-half. Default: all.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="First N images only; 0 = all.")] = 0,
    search: Search = 0,
    entropy: Entropy = "static",
    count: Annotated[
        str, typer.Option(help="What must be equal: file (all bytes) or payload.")
    ] = "file",
    rates: Annotated[
        str, typer.Option(help="Bits per pixel at which the other codecs are measured.")
    ] = "0.0085,0.013,0.02,0.03,0.045",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 1,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Measure the other codecs only; call again for ours.")
    ] = False,
    model: ModelName = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare with other codecs at equal bytes. Tables, curves, side-by-side sheets.

    What is in the folder already is not measured again: an interrupted comparison goes on, and new
    weights cost only our own points.
    """
    from sim.baselines import BASELINES
    from sim.metrics import DEFAULT, OPTIONAL
    from sim.metrics.quality import measurable

    names = tuple(codecs.replace(" ", "").split(",")) if codecs else BASELINES
    for name in names:
        if name not in BASELINES:
            raise UserError(f"--codecs {name}: choose from {', '.join(BASELINES)}")
    wanted = tuple(metrics.replace(" ", "").split(",")) if metrics else measurable()
    for name in wanted:
        if name not in (*DEFAULT, *OPTIONAL):
            raise UserError(f"--metrics {name}: choose from {', '.join((*DEFAULT, *OPTIONAL))}")
    if count not in ("file", "payload"):
        raise UserError(f"--count {count}: choose file or payload")
    from sim.media.images import load_images

    loaded = load_images([images], Path.cwd())[: limit or None]
    codec = _codec(model, device, dtype)

    from sim.cli.bench_console import print_bench
    from sim.studies.codec_bench.runner import run_bench
    from sim.studies.codec_bench.work import BenchConfig, BenchLevel

    try:
        chosen = tuple(
            BenchLevel(*map(int, word.split("@", 1))) for word in levels.split(",") if word.strip()
        )
    except ValueError:
        raise UserError(f"--levels {levels}: as 8,64 or 512@24, with commas between") from None
    chosen = chosen or tuple(map(BenchLevel, codec.model.codebook_sizes))
    from sim.progress import progress_bar

    counted: Counted = "file" if count == "file" else "payload"
    config = BenchConfig(chosen, entropy, names, search, counted, wanted, _rates(rates), workers)
    with progress_bar("bench") as progress:
        summary = run_bench(codec, loaded, config, out, progress, model, prepare)
    if prepare:
        typer.echo(f"{out}: the other codecs are measured; now call without --prepare", err=True)
    elif as_json:
        print_json({"folder": str(out), **summary})
    else:
        print_bench(summary, out)


@codec_app.command()
def bits(
    images: Annotated[str, typer.Option(help="Image, folder or glob, or the word samples.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    levels: Annotated[str, typer.Option(help="Codebook sizes: 8,64,1024. Default: all.")] = "",
    slices: Annotated[str, typer.Option(help="Packets per image.")] = "1,8,24",
    limit: Annotated[int, typer.Option(min=0, help="First N images only; 0 = all.")] = 0,
    model: ModelName = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    as_json: AsJson = False,
) -> None:
    """Bits per token of entropy modes, levels and interleavers.

    Table and figure.
    """
    try:
        counts = sorted({int(word) for word in slices.split(",") if word.strip()})
    except ValueError:
        counts = []
    if not counts or not 1 <= counts[0] <= counts[-1] <= 256:
        raise UserError(f"--slices {slices}: numbers from 1 to 256 with commas between them")
    from sim.media.images import load_images

    loaded = load_images([images], Path.cwd())[: limit or None]
    codec = _codec(model, device, dtype)
    chosen = _levels(levels) or codec.model.codebook_sizes

    from sim.progress import progress_bar
    from sim.studies.codec_bench.bits import bits_study, print_bits

    with progress_bar("bits") as progress:
        rows = bits_study(codec, loaded, chosen, counts, out, progress)
    if as_json:
        print_json({"folder": str(out), "rows": rows})
    else:
        print_bits(rows, out)


@codec_app.command()
def plot(
    folder: Annotated[Path, typer.Argument(help="What bench wrote.", show_default=False)],
) -> None:
    """Draw a comparison's figures again from its saved tables."""
    from sim.studies.codec_bench.figures import draw_bench

    typer.echo("\n".join(str(path) for path in draw_bench(folder)))


def _levels(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(word) for word in text.split(",") if word.strip()}))
    except ValueError:
        raise UserError(f"--levels {text}: numbers with commas between them, as 8,64") from None


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(sorted({float(word) for word in text.split(",") if word.strip()}))
    except ValueError:
        rates = ()
    if not rates or not 0 < rates[0] <= rates[-1] <= 24:
        raise UserError(f"--rates {text}: bits per pixel with commas between them, as 0.02,0.045")
    return rates


def _codec(model: str | None, device: str, dtype: str) -> ImageCodec:
    from codec.checkpoint import ModelError
    from sim.media.frames import load_model
    from sim.media.token_file import ImageCodec

    try:
        return ImageCodec(load_model(model, chosen_device(device, dtype)))
    except ModelError as error:
        raise UserError(str(error)) from None


def _made_by(codec: ImageCodec) -> dict[str, str]:
    return {"model": codec.model.fingerprint, "device": str(codec.model.device)}


def _token_files(source: Path, extension: str) -> list[Path]:
    if not source.is_dir():
        if not source.exists():
            raise UserError(f"{source}: no such file")
        return [source]
    files = sorted(path for path in source.iterdir() if path.suffix == extension and path.is_file())
    if not files:
        raise UserError(f"{source}: no {extension} files in this folder")
    return files


def _targets(source: Path, out: Path, names: Iterable[str], extension: str) -> list[Path]:
    """Where each result goes."""
    folder = source.is_dir() or out.is_dir()
    if source.is_dir() and out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; a folder of images needs a folder")
    targets = [out / f"{name}{extension}" for name in names] if folder else [out]
    for target in targets:
        if target.is_dir():
            raise UserError(f"{target}: is a folder")
        if target.exists() and source.exists() and target.samefile(source):
            raise UserError(f"{target}: would overwrite the input")
    return targets


def _about(path: Path, read: Callable[[bytes], T], data: bytes) -> T:
    """What `read` makes of a file's bytes; its complaints name the file."""
    try:
        return read(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    from sim.media.container import MAX_FILE_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _write(path: Path, data: bytes) -> None:
    """All of the file or nothing of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise UserError(f"{path}: cannot write here ({error.strerror})") from None


def _format(path: Path) -> str:
    """Pillow's name of the format that a file's ending asks for."""
    from PIL import Image

    wanted = Image.registered_extensions().get(path.suffix.lower())
    if wanted not in Image.SAVE:
        raise UserError(f"{path}: no image format that can be written; .png is one")
    return wanted


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, _format(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written in this format ({error})") from None
    _write(path, buffer.getvalue())

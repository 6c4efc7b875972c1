"""`sim model`: import, list and show the weights that images are coded with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.errors import UserError
from sim.progress import print_json, screen

if TYPE_CHECKING:
    from codec.codebook import PatchStatistics
    from codec.import_taming import TamingCheckpoint

model_app = typer.Typer(no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@model_app.command("import")
def import_(
    checkpoint: Annotated[
        Path, typer.Argument(help="taming-transformers VQGAN, .ckpt.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model folder to write.")],
    images: Annotated[
        str, typer.Option(help="Photos whose token usage weighs the K-means ladder.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a published VQGAN checkpoint into a model folder. It has 16 pixels a token.

    Scenarios use the folder as codec.model, the codec commands as --model.
    """
    from codec.model import CONTEXT_FILE, INPAINTER_FILE, TOKENIZER_FILE

    if (out / TOKENIZER_FILE).exists() and not force:
        raise UserError(f"{out}: holds a model already; choose another folder, or --force")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; a model needs a folder")
    from codec.checkpoint import ModelError
    from codec.import_taming import read_checkpoint, save_model

    try:
        found = read_checkpoint(checkpoint)
    except ModelError as error:
        raise UserError(str(error)) from None
    seen, count = _seen(found, images) if images else (None, 0)
    try:
        ladder = save_model(found, seen, out, count)
    except OSError as error:
        raise UserError(f"{out}: cannot write here ({error.strerror})") from None
    to_train = [
        f"sim train {name} --model {out} --images PHOTOS --out {out}"
        for name, file in (("inpainter", INPAINTER_FILE), ("context", CONTEXT_FILE))
        if not (out / file).exists()
    ]
    if as_json:
        about = {"folder": str(out), "levels": ladder.codebook_sizes, "ignored": found.ignored}
        print_json({**about, "to_train": to_train})
        return
    words, dim = found.codewords.shape
    typer.echo(f"{out / TOKENIZER_FILE}: {words} codewords of {dim} numbers")
    typer.echo(f"levels: {', '.join(map(str, ladder.codebook_sizes))}")
    weighed = f"usage on {count} images" if count else "all codewords alike (no --images)"
    typer.echo(f"K-means ladder weighed by {weighed}; the decoder is not tuned to small levels")
    if found.ignored:
        typer.echo(f"left aside: {', '.join(found.ignored)}")
    typer.echo("still to be trained, for repair and for context coding:")
    for command in to_train:
        typer.echo(f"  {command}")


def _seen(checkpoint: TamingCheckpoint, images: str) -> tuple[PatchStatistics, int]:
    """The codewords on some images, and how many images."""
    import torch

    from codec.codebook import PatchStatistics, nearest
    from sim.media.images import load_images
    from sim.progress import progress_bar

    loaded = load_images([images], Path.cwd())
    words = checkpoint.codewords
    seen = PatchStatistics(len(words))
    encoder = checkpoint.encoder.eval()
    with progress_bar("counting tokens") as progress, torch.inference_mode():
        for number, image in enumerate(loaded):
            progress(number, len(loaded), image.name)
            height, width = (side // 16 * 16 for side in image.pixels.shape[:2])
            pixels = torch.from_numpy(image.pixels[:height, :width].copy()).permute(2, 0, 1)
            scaled = pixels[None].float() / 127.5 - 1
            latents = encoder(scaled)[0].flatten(1).t().contiguous()
            seen.add(nearest(latents, words), scaled)
    return seen, len(loaded)


@model_app.command("list")
def list_(
    folder: Annotated[
        Path, typer.Argument(help="Where model folders are, besides the shipped one.")
    ] = Path("models"),
    as_json: AsJson = False,
) -> None:
    """The shipped model and those in a folder, one line each."""
    from codec.model import PRETRAINED, TOKENIZER_FILE

    places = [PRETRAINED]
    if folder.is_dir():
        places += sorted(path.parent for path in folder.glob(f"*/{TOKENIZER_FILE}"))
    found = []
    for place in places:
        try:
            found.append(_describe(place))
        except UserError as error:
            found.append({"folder": str(place), "error": str(error)})
    if as_json:
        print_json(found)
        return
    for about in found:
        name = "shipped" if about["folder"] == str(PRETRAINED) else about["folder"]
        if "error" in about:
            typer.echo(f"{name}: {about['error']}")
            continue
        sizes = about["levels"]
        parts = ", ".join(about["parts"])
        typer.echo(
            f"{name}: {about['fingerprint']}, {about['kind']}, K = {sizes[0]['codebook']} to "
            f"{sizes[-1]['codebook']}, {parts}"
        )


@model_app.command()
def show(
    folder: Annotated[
        Path | None, typer.Argument(help="A model folder. Default: the shipped one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Levels, files, fingerprints. Bits and sizes, and where files are from."""
    from codec.model import PRETRAINED

    about = _describe(folder or PRETRAINED)
    if as_json:
        print_json(about)
        return
    from rich.table import Table

    console = screen()
    console.print(f"{about['folder']}: {about['fingerprint']}", soft_wrap=True)
    levels = Table(title="Levels", title_justify="left")
    for heading in ("K", "bits/token fixed", "static", "bits/pixel fixed", "codewords used"):
        levels.add_column(heading, justify="right")
    for row in about["levels"]:
        levels.add_row(
            str(row["codebook"]),
            str(row["bits_fixed"]),
            f"{row['bits_static']:.2f}",
            f"{row['bpp_fixed']:.4f}",
            f"{row['used']:.0%}",
        )
    console.print(levels)
    files = Table(title="Files", title_justify="left")
    for heading in ("file", "MB", "parameters", "fingerprint", "from"):
        files.add_column(heading)
    for file in about["files"]:
        origin = json.dumps(file["about"]) if file["about"] else ""
        size = f"{file['bytes'] / 1e6:.1f}"
        files.add_row(
            file["name"], size, f"{file['parameters']:,}", file["fingerprint"][:16], origin
        )
    console.print(files)
    for name in about["to_train"]:
        console.print(f"not trained yet: {name} (sim train {name})")


def _describe(folder: Path) -> dict[str, Any]:
    """Everything that is known of a model folder."""
    import numpy as np

    from codec.checkpoint import ModelError, load_weights
    from codec.model import CONTEXT_FILE, INPAINTER_FILE, TOKENIZER_FILE, Model

    try:
        model = Model.load(folder)
        files = []
        for name in (TOKENIZER_FILE, INPAINTER_FILE, CONTEXT_FILE):
            path = folder / name
            if path.exists():
                config, tensors, mark = load_weights(path)
                files.append(
                    {
                        "name": name,
                        "bytes": path.stat().st_size,
                        "parameters": sum(tensor.numel() for tensor in tensors.values()),
                        "fingerprint": mark,
                        "network": config.get("network", {}),
                        "about": {k: v for k, v in config.items() if k in ("source", "training")},
                    }
                )
    except ModelError as error:
        raise UserError(str(error)) from None
    levels = []
    for size in model.codebook_sizes:
        share = model.frequencies(size) / 2**16
        bits = size.bit_length() - 1
        levels.append(
            {
                "codebook": size,
                "bits_fixed": bits,
                "bits_static": float(-(share * np.log2(share)).sum()),
                "bpp_fixed": bits / 256,
                "used": float(np.mean(share * size > 0.05)),
            }
        )
    parts = {"inpainter": model.inpainter, "context": model.context}
    return {
        "folder": str(folder),
        "fingerprint": model.fingerprint,
        "kind": str(files[0]["network"].get("kind", "ours")),
        "levels": levels,
        "files": files,
        "parts": ["tokenizer", *(name for name, part in parts.items() if part is not None)],
        "to_train": [name for name, part in parts.items() if part is None],
    }

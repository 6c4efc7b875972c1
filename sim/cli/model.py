"""`sim model`: import, list and show the weights that images are coded with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sim.cli.console import print_line, print_result, print_table
from sim.cli.groups import command_group
from sim.cli.options import AsJson, NewImages, Out

model_app = command_group()


@model_app.command("import")
def import_(
    checkpoint: Annotated[
        Path, typer.Argument(help="taming-transformers VQGAN, .ckpt.", show_default=False)
    ],
    out: Out,
    images: NewImages = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a VQGAN checkpoint into a model folder.

    Its tokens stand for 16 x 16 pixels. Scenarios use the folder as codec.model, commands as
    --model. The token usage on --images weighs the K-means ladder of smaller codebooks.
    """
    from sim.media.model_folder import import_model
    from sim.progress import progress_bar

    with progress_bar("import") as progress:
        found = import_model(checkpoint, out, images, force, progress)
    shown = {key: found[key] for key in ("folder", "levels", "ignored", "to_train")}
    print_result(as_json, shown, _print_import, found)


@model_app.command("list")
def list_(
    folder: Annotated[
        Path, typer.Argument(help="Where model folders are, besides the shipped one.")
    ] = Path("models"),
    as_json: AsJson = False,
) -> None:
    """The shipped model and those in a folder, one line each."""
    from sim.media.model_folder import list_models

    found = list_models(folder)
    print_result(as_json, found, _print_list, found)


@model_app.command()
def show(
    folder: Annotated[
        Path | None, typer.Argument(help="A model folder. Default: the shipped one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Codebooks, files and fingerprints of a model.

    With bits, sizes, and where files are from.
    """
    from sim.media.model_folder import describe_model

    about = describe_model(folder)
    print_result(as_json, about, _print_model, about)


def _print_import(found: Mapping[str, Any]) -> None:
    count = found["images"]
    weights = f"usage on {count} images" if count else "all codewords alike (no --images)"
    ignored = [f"left aside: {', '.join(found['ignored'])}"] if found["ignored"] else []
    lines = [
        f"{found['file']}: {found['codewords']} codewords of {found['dimensions']} numbers",
        f"levels: {', '.join(map(str, found['levels']))}",
        f"K-means ladder weighed by {weights}; the decoder is not tuned to small levels",
        *ignored,
        "still to be trained, for repair and for context coding:",
        *(f"  {command}" for command in found["to_train"]),
    ]
    typer.echo("\n".join(lines))


def _print_list(models: Sequence[Mapping[str, Any]]) -> None:
    from codec.model import PRETRAINED

    for about in models:
        name = "shipped" if about["folder"] == str(PRETRAINED) else about["folder"]
        if "error" in about:
            typer.echo(f"{name}: {about['error']}")
        else:
            least, most = (about["levels"][end]["codebook"] for end in (0, -1))
            typer.echo(
                f"{name}: {about['fingerprint']}, {about['kind']}, K = {least} to {most}, "
                f"{', '.join(about['parts'])}"
            )


def _print_model(about: Mapping[str, Any]) -> None:
    print_line(f"{about['folder']}: {about['fingerprint']}")
    headings = ("K", "bits/token fixed", "static", "bits/pixel fixed", "codewords used")
    print_table(
        "Levels",
        headings,
        [
            (
                str(level["codebook"]),
                str(level["bits_fixed"]),
                f"{level['bits_static']:.2f}",
                f"{level['bpp_fixed']:.4f}",
                f"{level['used']:.0%}",
            )
            for level in about["levels"]
        ],
        right=headings,
        spread=headings[1:],
    )
    print_table(
        "Files",
        ("file", "MB", "parameters", "fingerprint", "from"),
        [
            (
                file["name"],
                f"{file['bytes'] / 1e6:.1f}",
                f"{file['parameters']:,}",
                file["fingerprint"][:16],
                json.dumps(file["about"]) if file["about"] else "",
            )
            for file in about["files"]
        ],
    )
    for name in about["to_train"]:
        print_line(f"not trained yet: {name} (sim train {name})")

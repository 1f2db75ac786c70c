"""`cloudai init`: the commented configuration file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from cloudai.cli.output import json_option, print_json
from cloudai.scheduling.errors import InvalidRequest


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("cloudai.toml"))
@json_option
def init(path: Path, as_json: bool) -> None:
    """Write a commented cloudai.toml: every setting with its default. No existing file is overwritten."""
    if path.is_dir():
        path = path / "cloudai.toml"
    text = (resources.files("cloudai") / "default_config" / "cloudai.toml").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InvalidRequest(
            "path", str(path), "a file that does not exist yet; this one is kept as it is"
        ) from None
    if as_json:
        print_json({"written": str(path)})
    else:
        click.echo(
            f"{path} is written. Every setting in it is commented out and shows its default; it is read "
            "when you work in its folder, or from CLOUDAI_CONFIG."
        )

"""``tunesmith export``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tunesmith.cli.options import RunArgument


def export(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder.")],
    form: Annotated[
        Literal["peft", "merged"], typer.Option("--as", help="peft: an adapter; merged: a whole Hugging Face model.")
    ],
) -> None:
    """Write a run for transformers, PEFT and what builds on them, with a model card."""
    from tunesmith.recipes.export import export as recipe

    recipe(run, out, form=form)
    print(f"wrote {out}")

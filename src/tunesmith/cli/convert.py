"""``tunesmith convert``."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, adapter, run, hub id or preset.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder.")],
) -> None:
    """Write any supported checkpoint as a plain Hugging Face folder."""
    from tunesmith.recipes.export import convert as recipe

    found = recipe(model, out)
    print(f"wrote {out}: {found.config.family}, {sum(p.numel() for p in found.parameters()):,} parameters")

"""``tunesmith predict``."""

import io
import json
import sys
from typing import Annotated

import typer

from tunesmith.cli.options import RunArgument


def predict(
    run: RunArgument,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="Table of texts, a .txt file, or - for lines on input.")
    ],
) -> None:
    """Predict labels; one JSON object a line on standard output."""
    from tunesmith.recipes.predict import predict as recipe

    if file == "-" and isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # whatever the locale says
    for row in recipe(run, file, lines=sys.stdin if file == "-" else None):
        print(json.dumps(row, ensure_ascii=False))

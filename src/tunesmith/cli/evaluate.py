"""``tunesmith evaluate``."""

import json
from typing import Annotated

import typer

from tunesmith.cli.options import DataArgument, RunArgument


def evaluate(
    run: RunArgument,
    data: DataArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    split: Annotated[
        str | None, typer.Option("--split", help="train, dev or test; the most telling one by default.")
    ] = None,
) -> None:
    """Evaluate a run on labelled data."""
    from tunesmith.recipes.evaluate import evaluate as recipe

    name, metrics = recipe(run, data, split=split)
    if as_json:
        print(json.dumps(metrics))
        return
    print(name)
    for metric, value in metrics.items():
        print(f"{metric:>12} {value:.4f}")

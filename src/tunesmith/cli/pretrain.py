"""``tunesmith pretrain``."""

import os
from typing import Annotated

import typer

from tunesmith.cli.options import (
    FileOption,
    OutOption,
    OverwriteOption,
    ResumeOption,
    SettingsArgument,
    settings_tree,
)
from tunesmith.cli.progress import make_listener


def pretrain(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Recipe, such as bert (= bert_mini) or t5_small; or a TOML file.")
    ],
    out: OutOption,
    corpus: Annotated[
        str,
        typer.Option("--corpus", help="Text, JSON Lines (.gz) or Parquet file, folder of such files, or hub id."),
    ],
    settings: SettingsArgument = None,
    file: FileOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Pretrain a model from scratch on raw text."""
    from tunesmith.recipes.output import need_finished
    from tunesmith.recipes.pretrain import run_pretrain
    from tunesmith.recipes.pretrain_settings import pretrain_settings

    resolved = pretrain_settings(recipe, settings_tree(file, settings))
    run_pretrain(recipe, corpus, out, resolved, resume=resume, overwrite=overwrite, listener=make_listener())
    if os.environ.get("RANK", "0") != "0":  # under torchrun one process speaks
        return
    metrics = need_finished(out)
    scores = ", ".join(f"{name} {value:.4f}" for name, value in metrics["dev"].items())
    print(f"dev: {scores} (a constant guess: {metrics['constant_loss']:.4f})")
    more = f", or go on: tunesmith tune {out} DATA --out RUN"
    print(f"saved to {out}; look at {out / 'report.html'}{more}")

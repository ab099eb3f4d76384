"""``tunesmith tune``."""

from typing import Annotated

import typer

from tunesmith.cli.options import (
    DataArgument,
    FileOption,
    ModelArgument,
    OutOption,
    OverwriteOption,
    ResumeOption,
    SettingsArgument,
    settings_tree,
)
from tunesmith.cli.progress import make_listener


def tune(
    model: ModelArgument,
    data: DataArgument,
    out: OutOption,
    settings: SettingsArgument = None,
    method: Annotated[str | None, typer.Option("--method", help="Tuning method; lora by default.")] = None,
    file: FileOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Tune a model on labelled data; the best of the dev split is kept."""
    from tunesmith.recipes.settings import tune_settings
    from tunesmith.recipes.tune import run_tune

    tree = settings_tree(file, settings)
    named = tree.get("method", {})
    if isinstance(named, dict):
        tree["method"] = {"name": "lora", **named} if method is None else {**named, "name": method}
    elif method is not None:
        tree["method"] = method
    resolved = tune_settings(tree)
    run = run_tune(model, data, out, resolved, resume=resume, overwrite=overwrite, listener=make_listener())
    for split in ("dev", "test"):
        if split in run.metrics:
            scores = ", ".join(f"{name} {value:.4f}" for name, value in run.metrics[split].items())
            print(f"{split}: {scores}")
    print(f"saved to {out}; look at {out / 'report.html'}, or go on: tunesmith predict {out} FILE")

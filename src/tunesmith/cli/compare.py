"""``tunesmith compare``."""

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


def compare(
    model: ModelArgument,
    data: DataArgument,
    out: OutOption,
    settings: SettingsArgument = None,
    methods: Annotated[str, typer.Option("--methods", help="Methods, with commas between them.")] = (
        "linear_probe,bitfit,lora,full"
    ),
    seeds: Annotated[int, typer.Option("--seeds", help="Seeds for each method.")] = 3,
    file: FileOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Tune with several methods and seeds on the same splits; leaderboard.csv and report.html."""
    from tunesmith.recipes.compare import run_compare

    names = [name.strip() for name in methods.split(",") if name.strip()]
    found = run_compare(
        model,
        data,
        out,
        settings_tree(file, settings),
        methods=names,
        seeds=seeds,
        resume=resume,
        overwrite=overwrite,
        listener=make_listener(),
    )
    print_comparison(found.rows)
    print(f"leaderboard: {out / 'leaderboard.csv'}; report: {out / 'report.html'}")


def print_comparison(rows: list) -> None:
    """The leaderboard and its verdict on standard output."""
    import rich.console

    from tunesmith.report.table import console_table, verdict

    console = rich.console.Console()
    console.print(console_table(rows))
    console.print(verdict(rows), highlight=False)

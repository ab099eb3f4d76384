"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.base.config import merge, parse_assignments, read_toml

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, hub id, preset, run or adapter.")]
DataArgument = Annotated[
    str,
    typer.Argument(metavar="DATA", help="CSV, TSV, JSON Lines (.gz) or Parquet file, folder with splits, or hub id."),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder to write into.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with what stands in the folder.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Delete what stands in the folder.")]
FileOption = Annotated[Path | None, typer.Option("--file", help="Settings from a TOML file.")]
SettingsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings, such as train.epochs=3.")
]


def settings_tree(file: Path | None, assignments: list[str] | None) -> dict[str, Any]:
    """Settings of a file with those of the command line over them.

    Raises:
        SettingError: Either cannot be read.
    """
    tree = {} if file is None else read_toml(file)
    run_file = {"verb", "source", "methods", "seeds", "recipe"}  # a run.toml can be given as it is
    if isinstance(tree.get("model"), str):
        run_file.add("model")
    return merge(
        {key: value for key, value in tree.items() if key not in run_file}, parse_assignments(assignments or [])
    )

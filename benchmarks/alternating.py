"""Measure several sides alternately, each in a process of its own, and take medians."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

Figures = dict[str, float]


def one_round(script: str, sides: Sequence[str], options: Sequence[str], seen: dict[str, list[Figures]]) -> None:
    """Run ``script --side SIDE`` with the options for each side in turn; its last line is a JSON object of figures."""
    for side in sides:
        command = [sys.executable, script, "--side", side, *options]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        seen.setdefault(side, []).append(json.loads(output.splitlines()[-1]))
        print(side, seen[side][-1], file=sys.stderr, flush=True)


def medians(seen: dict[str, list[Figures]]) -> dict[str, Figures]:
    """The median of each figure of each side."""
    return {
        side: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for side, runs in seen.items()
    }


def publish(result: dict[str, object], out: Path | None) -> None:
    """Print the result as a JSON line, and append it to a file."""
    line = json.dumps(result)
    print(line)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def write_splits(folder: Path, parts: dict[str, list]) -> None:
    """Write rows as a folder of JSON Lines that tunesmith reads, one file for each split."""
    for split, rows in parts.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")

"""Quality of `tunesmith tune` with no setting, on the rows that `tune_quality_peers.py` trains its peers on.

    python benchmarks/tune_quality.py --out benchmarks/results/tune_quality.jsonl
    python benchmarks/tune_quality.py --table

Same subsets (at most 2,000 training rows), same split for choosing, same split for reporting. One JSON line a run;
runs that the file already holds are skipped. ``--table`` sets both files side by side.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

import torch

import peers
import tune_quality_peers
import tunesmith

RESULTS = Path(__file__).parent / "results"


def rows_as_folder(folder: Path, data: Path, task: peers.Task) -> Path:
    """The peers' rows as a folder that tunesmith reads: `dev` chooses, `test` is reported."""
    peers.write_subset(
        folder,
        data,
        task.name,
        train_limit=tune_quality_peers.TRAIN_LIMIT,
        dev_limit=tune_quality_peers.DEV_LIMIT,
        seed=tune_quality_peers.SUBSET_SEED,
    )
    if task.report == "dev":
        (folder / "dev.jsonl").rename(folder / "test.jsonl")
        (folder / "held_out.jsonl").rename(folder / "dev.jsonl")
    return folder


def run(task: peers.Task, method: str, seed: int, data: Path, where: dict) -> dict:
    """One run with no setting but the seed."""
    with tempfile.TemporaryDirectory() as folder:
        source = rows_as_folder(Path(folder) / "data", data, task)
        tuned = tunesmith.tune(str(peers.checkpoint()), source, method=method, settings={"train.seed": seed})
    return {"task": task.name, "method": method, "seed": seed, "metrics": tuned.metrics, **where}


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(ours: Path, theirs: Path) -> str:
    """Markdown: means over seeds of the main metric, in points."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in read(ours):
        scores[line["task"], f"tunesmith {line['method']}"].append(
            line["metrics"]["test"][peers.TASKS[line["task"]].metrics[0]]
        )
    searched: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for line in read(theirs):
        name, setting = line["main_metric"], line["settings"]
        scores[line["task"], f"peer {setting['method']} at {setting['learning_rate']:g}"].append(line["last"][name])
        if setting["method"] == "lora":
            chosen_by = line["epochs"][-1][line["selection"]][name]
            searched[line["task"], line["seed"]].append((chosen_by, line["last"][name]))
    for (task, _), tried in searched.items():
        if len(tried) == len(tune_quality_peers.SEARCH_RATES):
            scores[task, "peer lora, best of 3 rates by dev"].append(max(tried)[1])
    columns = sorted({column for _, column in scores})
    lines = ["| task | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for task in peers.TASKS:
        cells = [scores.get((task, column), []) for column in columns]
        shown = [f"{100 * statistics.mean(cell):.1f} ({len(cell)})" if cell else "" for cell in cells]
        lines.append(f"| {task} ({peers.TASKS[task].metrics[0]}) | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder")
    parser.add_argument("--out", type=Path, default=RESULTS / "tune_quality.jsonl")
    parser.add_argument("--methods", default="lora,full,linear_probe,bitfit")
    parser.add_argument("--tasks", default=",".join(peers.TASKS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.out, RESULTS / "tune_quality_peers.jsonl"))
        return
    torch.set_num_threads(arguments.threads)
    where = peers.environment()  # at the start: the commit whose code this process has loaded
    done = {(line["task"], line["method"], line["seed"]) for line in read(arguments.out)}
    for seed in tune_quality_peers.SEEDS:
        for method in arguments.methods.split(","):
            for name in arguments.tasks.split(","):
                if (name, method, seed) not in done:
                    line = run(peers.TASKS[name], method, seed, arguments.data, where)
                    print(name, method, seed, line["metrics"]["test"], flush=True)
                    with arguments.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

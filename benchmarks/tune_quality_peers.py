"""How good the peer's classifiers get: transformers + PEFT on six small tasks, one JSON line per run.

    python benchmarks/tune_quality_peers.py [--data FOLDER] [--out FILE] [--tasks sst2,trec] [--summary]

At most 2,000 training rows (the same for every seed), 3 epochs, batches of 32, bf16 autocast, seeds 0 and 1.
The file is only ever appended to; a run that stands in it already is skipped, so the command can be stopped
and called again. Three lots of runs, in this order:

- `usual`: LoRA at 3e-4 and full tuning at 3e-5, all tasks;
- `search`: LoRA at 1e-4 and 1e-3 on rte, trec and cola, from which, with the run at 3e-4, one rate per task
  and seed is chosen; the choice is made when the summary is printed;
- `usual, larger rate`: full tuning at 5e-5, all tasks: 3e-5 suits wider models than this one.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean

import peers

TRAIN_LIMIT = 2000
DEV_LIMIT = 1000
SUBSET_SEED = 0
SEEDS = (0, 1)
SEARCH_RATES = (1e-4, 3e-4, 1e-3)
SEARCH_TASKS = ("rte", "trec", "cola")
LARGER_FULL_RATE = 5e-5


def plan(tasks: list[str]) -> list[dict]:
    """Every run, in the order in which to do them."""
    usual = [(task, method, peers.USUAL_LEARNING_RATE[method]) for task in tasks for method in ("lora", "full")]
    search = [(task, "lora", rate) for task in tasks if task in SEARCH_TASKS for rate in SEARCH_RATES]
    larger = [(task, "full", LARGER_FULL_RATE) for task in tasks]
    runs = []
    for lot in (usual, search, larger):
        for seed in SEEDS:
            for task, method, rate in lot:
                run = {"task": task, "seed": seed, "settings": settings(method, rate)}
                if run not in runs:
                    runs.append(run)
    return runs


def settings(method: str, learning_rate: float) -> dict:
    """All that is passed to `peers.train_transformers` besides rows and seed."""
    return {
        "method": method,
        "learning_rate": learning_rate,
        "precision": "bf16",
        "length_grouping": True,
        "attention": "eager",
        "epochs": 3,
        "batch_size": 32,
        "rank": 8,
        "alpha": 16,
        "lora_dropout": 0.1,
        "threads": 1,
    }


def subset(args: argparse.Namespace) -> dict:
    """The choice of rows, as passed to `peers.task_rows`."""
    return {"train_limit": args.train_limit, "dev_limit": DEV_LIMIT, "seed": SUBSET_SEED}


def read_results(path: Path) -> list[dict]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def identity(record: dict) -> tuple:
    """What makes a run the same run: not its results, its date or its machine."""
    return json.dumps([record[key] for key in ("task", "seed", "settings", "subset")], sort_keys=True)


def run_all(args: argparse.Namespace) -> None:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = {identity(record) for record in read_results(args.out)}
    surroundings = peers.environment()
    for run in plan(args.tasks):
        run["subset"] = subset(args)
        if identity(run) in done:
            continue
        task = peers.TASKS[run["task"]]
        rows = peers.task_rows(args.data, task.name, **run["subset"])
        start = time.perf_counter()
        result = peers.train_transformers(task, rows, seed=run["seed"], **run["settings"])
        record = {
            **run,
            "side": "transformers+peft",
            "rows": {split: len(chosen) for split, chosen in rows.items()},
            "report": task.report,
            "selection": task.selection,
            "main_metric": task.metrics[0],
            **result,
            "seconds_with_loading_and_scoring": time.perf_counter() - start,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **surroundings,
        }
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        rate, method = run["settings"]["learning_rate"], run["settings"]["method"]
        print(
            f"{task.name} {method} {rate:g} seed {run['seed']}: {result['last']} {result['seconds']:.0f} s",
            flush=True,
        )


def searched(records: list[dict], split_key: str) -> list[dict]:
    """Per seed the LoRA run whose last epoch is best on that split; of equals the smaller rate."""
    chosen = []
    for seed in sorted({record["seed"] for record in records}):
        runs = [record for record in records if record["seed"] == seed]
        if {record["settings"]["learning_rate"] for record in runs} != set(SEARCH_RATES):
            continue
        runs.sort(key=lambda record: record["settings"]["learning_rate"])
        chosen.append(max(runs, key=lambda r: r["epochs"][-1][split_name(r, split_key)][r["main_metric"]]))
    return chosen


def split_name(record: dict, split_key: str) -> str:
    return "dev" if split_key == "dev" else record["selection"]


def summary(args: argparse.Namespace) -> None:
    """Print one line per task and method: means over the seeds, on the split that is reported."""
    records = [record for record in read_results(args.out) if record["subset"] == subset(args)]
    print("task  method                       metric    split  last    (seeds)           best    seconds")
    for task in args.tasks:
        lots = {}
        for method, rate in (("lora", 3e-4), ("full", 3e-5), ("full", LARGER_FULL_RATE)):
            wanted = settings(method, rate)
            lots[f"{method} {rate:g}"] = [r for r in records if r["task"] == task and r["settings"] == wanted]
        if task in SEARCH_TASKS:
            tried = [r for r in records if r["task"] == task and r["settings"]["method"] == "lora"]
            lots["lora search by selection"] = searched(tried, "selection")
            if peers.TASKS[task].selection != "dev":
                lots["lora search by dev (biased)"] = searched(tried, "dev")
        for lot, runs in lots.items():
            for metric in peers.TASKS[task].metrics if runs else ():
                last = [record["last"][metric] for record in runs]
                best = mean(record["best"][metric] for record in runs)
                seconds = mean(record["seconds"] for record in runs)
                rates = " ".join(f"{r['settings']['learning_rate']:g}" for r in runs) if "search" in lot else ""
                seeds = ", ".join(f"{value:.4f}" for value in last)
                print(
                    f"{task:5} {lot:28} {metric:9} {runs[0]['report']:5}  {mean(last):.4f}  ({seeds})  "
                    f"{best:.4f}  {seconds:6.1f}  {rates}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder (../shared/data)")
    parser.add_argument(
        "--out", type=Path, default=peers.REPOSITORY / "benchmarks" / "results" / "tune_quality_peers.jsonl"
    )
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(peers.TASKS), help="a,b,c")
    parser.add_argument("--train-limit", type=int, default=TRAIN_LIMIT, help="training rows (2000)")
    parser.add_argument("--summary", action="store_true", help="print the table of the results file and stop")
    args = parser.parse_args()
    if not args.data.is_dir():
        raise SystemExit(f"no data folder {args.data}: set --data to the folder that holds sst2/, trec/, ...")
    if not args.summary:
        run_all(args)
    summary(args)


if __name__ == "__main__":
    main()

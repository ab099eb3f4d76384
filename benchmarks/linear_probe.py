"""Linear probe: our whole regularisation path against head-only training in transformers, on 10,000 rows of SST-2.

    python benchmarks/linear_probe.py --out benchmarks/results/linear_probe.jsonl

Ours: features (with an empty cache, then from it), 30 strengths, and the choice by the dev split; the time of the whole
call (reading, tokenising, final evaluation in fp32, report) is given beside. Peers: 3 epochs of training the classifier
on the frozen pooler, as documented (fp32) and in bf16 with length grouping; the time of their training loop alone,
without tokenising and scoring. Each in a process of its own, alternately.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch

import alternating
import peers

SIDES = ("ours_cold", "ours_cached", "peer_bf16", "peer_fp32")
ROWS = 10_000


def run_side(side: str, data: Path, threads: int, cache: Path) -> dict[str, float]:
    """One measurement, in this process."""
    torch.set_num_threads(threads)
    rows = peers.load_rows(data, "sst2", "train", ROWS)
    held = peers.load_rows(data, "sst2", "dev", 1000)
    if side.startswith("peer"):
        best = side == "peer_bf16"
        found = peers.train_transformers(
            peers.TASKS["sst2"],
            {"train": rows, "dev": held, "test": held},
            method="head",
            learning_rate=1e-3,
            seed=0,
            precision="bf16" if best else "fp32",
            length_grouping=best,
            attention="eager" if best else "sdpa",
            epochs=3,
            threads=threads,
        )
        return {"seconds": found["seconds"], "dev_accuracy": max(e["dev"]["accuracy"] for e in found["epochs"])}
    return _ours(rows, held, cache)


def _ours(rows: list, held: list, cache: Path) -> dict[str, float]:
    os.environ["TUNESMITH_CACHE"] = str(cache)
    from tunesmith.base.choices import choose
    from tunesmith.recipes import tune

    with tempfile.TemporaryDirectory() as folder:
        alternating.write_splits(Path(folder), {"train": rows, "dev": held})
        method = choose("method", "linear_probe")
        started = time.perf_counter()
        run = tune.tune(str(peers.checkpoint()), folder, method=method, out=Path(folder) / "run")
        whole = time.perf_counter() - started
    metrics = run.metrics
    return {
        "seconds": metrics["train_seconds"],
        "whole_call_seconds": whole,
        "dev_accuracy": metrics["dev"]["accuracy"],
        "cached": float(metrics["features_cached"]),
    }


def main() -> None:
    """Alternate the sides and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run_side(arguments.side, arguments.data, arguments.threads, arguments.cache)))
        return
    sides = arguments.sides.split(",")
    seen: dict[str, list[alternating.Figures]] = {}
    options = ["--data", str(arguments.data), "--threads", str(arguments.threads)]
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as cache:  # empty for ours_cold, filled by it for ours_cached
            alternating.one_round(__file__, sides, [*options, "--cache", cache], seen)
    medians = alternating.medians(seen)
    result: dict[str, object] = {"benchmark": "linear_probe", "rows": ROWS, "threads": arguments.threads}
    result |= {"rounds": arguments.rounds, "median": medians, **peers.environment()}
    if set(SIDES) <= set(sides):
        seconds = {side: medians[side]["seconds"] for side in SIDES}
        result["ratios"] = {
            f"{ours}_vs_{peer}": seconds[peer] / seconds[ours]
            for ours in ("ours_cold", "ours_cached")
            for peer in ("peer_fp32", "peer_bf16")
        }
    alternating.publish(result, arguments.out)


if __name__ == "__main__":
    main()

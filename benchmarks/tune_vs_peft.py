"""Speed of LoRA tuning: ours against transformers + PEFT, on SST-2, alternately, each in a process of its own.

    python benchmarks/tune_vs_peft.py --out benchmarks/results/tune_vs_peft.jsonl

Same checkpoint, rows, rank, targets (query and value), batch size and the model's own dropout; no LoRA dropout.
Peers: as PEFT's documentation shows it (fp32, dynamic padding, default attention), and at its best settings (bf16
autocast, length grouping, eager attention, which is faster than sdpa in bf16 here).
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

import alternating
import peers

SIDES = ("ours_lora", "peft_best", "ours_full", "peft_documented")
STEPS = {"ours_lora": 300, "peft_best": 200, "ours_full": 100, "peft_documented": 40}
BATCH = 32


def gemm_rate(dtype: torch.dtype, *, tokens: int = 4096, width: int = 1536, repeats: int = 7) -> float:
    """Median rate of x W^T in FLOP/s, with matrices large enough to be bound by arithmetic."""
    x, weight = torch.randn(tokens, width).to(dtype), torch.randn(width, width).to(dtype)
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        times.append(time.perf_counter() - started)
    return 2 * tokens * width * width / statistics.median(times[2:])


def run_side(side: str, data: Path, threads: int) -> dict[str, float]:
    """One measurement, in this process."""
    torch.set_num_threads(threads)
    num_rows = STEPS[side] * BATCH
    rows = peers.load_rows(data, "sst2", "train", num_rows)
    held = peers.load_rows(data, "sst2", "dev", 64)
    if side.startswith("peft"):
        best = side == "peft_best"
        found = peers.train_transformers(
            peers.TASKS["sst2"],
            {"train": rows, "dev": held, "test": held},
            method="lora",
            learning_rate=3e-4,
            seed=0,
            precision="bf16" if best else "fp32",
            length_grouping=best,
            attention="eager" if best else "sdpa",
            epochs=1,
            lora_dropout=0.0,
            threads=threads,
        )
        return {"examples_per_second": found["examples_per_second"], "peak_rss_bytes": found["peak_rss_bytes"]}
    return _ours(side.removeprefix("ours_"), rows, held)


def _ours(method: str, rows: list, held: list) -> dict[str, float]:
    import tunesmith

    with tempfile.TemporaryDirectory() as folder:
        alternating.write_splits(Path(folder), {"train": rows, "dev": held})
        fields = {"rank": 8, "alpha": 16, "targets": ("attention.query", "attention.value")} if method == "lora" else {}
        settings = {"train.epochs": 1, "train.batch_size": BATCH, "train.evaluations": 1}
        run = tunesmith.tune(str(peers.checkpoint()), folder, method=method, settings=settings, **fields)
    metrics = run.metrics
    # forward, and backward through the activations; full tuning also needs the gradients of the weights
    flops_per_token = (4 if method == "lora" else 6) * 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    return {
        "examples_per_second": metrics["examples_per_second"],
        "peak_rss_bytes": metrics["peak_memory_bytes"],
        "tokens_per_second": metrics["tokens_per_second"],
        "gemm_share": metrics["tokens_per_second"] * flops_per_token / gemm_rate(torch.bfloat16),
    }


def main() -> None:
    """Alternate the sides and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run_side(arguments.side, arguments.data, arguments.threads)))
        return
    sides = arguments.sides.split(",")
    seen: dict[str, list[alternating.Figures]] = {}
    options = ["--data", str(arguments.data), "--threads", str(arguments.threads)]
    for _ in range(arguments.rounds):
        alternating.one_round(__file__, sides, options, seen)
    medians = alternating.medians(seen)
    result: dict[str, object] = {"benchmark": "tune_vs_peft", "threads": arguments.threads, "rounds": arguments.rounds}
    result |= {"median": medians, **peers.environment()}
    if set(SIDES) <= set(sides):
        speed = {side: medians[side]["examples_per_second"] for side in SIDES}
        result["ratios"] = {
            "lora_vs_documented": speed["ours_lora"] / speed["peft_documented"],
            "lora_vs_best": speed["ours_lora"] / speed["peft_best"],
            "lora_step_vs_full_step": speed["ours_full"] / speed["ours_lora"],
            "memory_vs_best": medians["ours_lora"]["peak_rss_bytes"] / medians["peft_best"]["peak_rss_bytes"],
            "memory_vs_documented": medians["ours_lora"]["peak_rss_bytes"]
            / medians["peft_documented"]["peak_rss_bytes"],
        }
    alternating.publish(result, arguments.out)


if __name__ == "__main__":
    main()

"""Speed of pretraining: ours against a loop of transformers' modules, alternately, each in a process of its own.

    python benchmarks/pretrain_vs_hf.py --task mlm --out benchmarks/results/pretrain_vs_hf.jsonl

Tasks: ``mlm`` (BERT in MiniLM's shape, vocabulary 30,522, blocks of 128 tokens without padding, 15 % masked), ``lines``
(the same on short texts, one a sequence: the peer pads each batch, as run_mlm.py --line_by_line does), ``electra``
(ELECTRA's generator and discriminator, blocks of 128 tokens). Both sides read the same text with the same tokenizer, in
steps of 32 sequences, with dropout 0.1 and AdamW. ``documented``: fp32 and the defaults; ``best``: bf16 autocast, fused
AdamW, and the faster attention of the two that transformers has here. Real tokens a second, without the first steps.
"""

import argparse
import gzip
import json
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import torch

import alternating
import peers
from gpu.electra_peer import Electra

BATCH, TOKENS = 32, 128
SIDES = ("ours", "best_sdpa", "best_eager", "documented")
STEPS = {"ours": 60, "best_sdpa": 16, "best_eager": 16, "documented": 8}
BETWEEN = 3
"""Steps between two looks at the rate of products."""
MLM_FLOPS = 6 * (6 * (4 * 384 * 384 + 2 * 384 * 1536) + 0.15 * 384 * (30522 + 384))
"""Of a token: three products a weight; 15 % of the rows reach the output matrix."""
OFTENER = {"lines": 3}
"""Times as many steps: short texts make batches of many shapes, and a library's first product of each is slow."""
WARM = 3


def steps_of(task: str, side: str) -> int:
    """Steps of a run."""
    return STEPS[side] * OFTENER.get(task, 1)


def text_of(task: str, data: Path) -> list[str]:
    """Documents: encyclopaedia articles, or short sentences."""
    if task == "lines":
        return [str(row["text"]) for row in peers.load_rows(data, "sst2", "train", 20_000)]
    with gzip.open(data / "corpus_enwiki" / "train.txt.gz", "rt", encoding="utf-8") as file:
        text = file.read(6_000_000)
    return [part for part in text.split("\n\n") if part.strip()]


def our_settings(task: str, steps: int) -> dict[str, object]:
    """What our recipe sets."""
    found: dict[str, object] = {
        "model.preset": "electra_small" if task == "electra" else "bert_base",
        "model.dropout": 0.1,
        "input.name": "doc_sentences" if task == "lines" else "blocks",
        "objective.name": "rtd" if task == "electra" else "mlm",
        "data.documents": "lines" if task == "lines" else "blocks",
        "data.max_tokens": TOKENS,
        "data.dev_sequences": 32,
        "tokenizer": str(peers.checkpoint()),
        "train.max_steps": steps,
        "train.batch_size": BATCH,
        "train.evaluations": 1,
    }
    if task != "electra":
        found |= {"model.num_layers": 6, "model.d_model": 384, "model.num_heads": 12, "model.d_ff": 1536}
    return found


class Pace:
    """Speed of the steps behind the first ones, and of bf16 products in between: a shared machine changes its pace."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []
        self.products: list[tuple[float, float]] = []

    def note(self, tokens: float, seconds: float, *, products: bool) -> None:
        """After a step: all tokens and seconds so far."""
        self.seen.append((tokens, seconds))
        behind = len(self.seen) - WARM
        if products and behind > 0 and behind % BETWEEN == 0:
            self.products.append((self._speed(-1 - BETWEEN), gemm_rate()))

    def _speed(self, first: int) -> float:
        (tokens, seconds), (all_tokens, all_seconds) = self.seen[first], self.seen[-1]
        return (all_tokens - tokens) / (all_seconds - seconds)

    def figures(self) -> dict[str, float]:
        """Tokens a second; the median rate of products, and of their share that the steps before each look reached."""
        found = {"tokens_per_second": self._speed(WARM - 1)}
        if self.products:
            found["gemm_rate"] = statistics.median(rate for _, rate in self.products)
            found["gemm_share"] = statistics.median(speed * MLM_FLOPS / rate for speed, rate in self.products)
        return found


def ours(task: str, texts: list[str]) -> dict[str, float]:
    """Our recipe, by its public call."""
    import tunesmith

    settings = our_settings(task, steps_of(task, "ours"))
    pace = Pace()

    class Watch:
        """Notes each step; what it does itself does not count as training."""

        def note(self, text: str) -> None: ...
        def stage(self, title: str) -> None: ...

        def step(self, progress, spent: float) -> None:
            pace.note(progress.tokens, progress.seconds, products=task == "mlm")

    with tempfile.TemporaryDirectory() as folder:
        joined = ("\n" if task == "lines" else "\n\n").join(texts)
        (Path(folder) / "corpus.txt").write_text(joined, encoding="utf-8")
        (Path(folder) / "recipe.toml").write_text("", encoding="utf-8")
        out = Path(folder) / "run"
        tunesmith.pretrain(
            str(Path(folder) / "recipe.toml"), Path(folder) / "corpus.txt", out=out, settings=settings, listener=Watch()
        )
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return {**pace.figures(), "peak_bytes": metrics["peak_memory_bytes"]}


def peer(side: str, task: str, texts: list[str]) -> dict[str, float]:
    """A loop of transformers' modules."""
    import transformers

    best = side != "documented"
    attention = "eager" if side == "best_eager" else "sdpa"
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(peers.checkpoint()))
    steps = steps_of(task, side)
    if task == "lines":
        rows = tokenizer(texts[: steps * BATCH], truncation=True, max_length=TOKENS)["input_ids"]
    else:
        ids: list[int] = []
        for text in texts:
            ids += tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) >= steps * BATCH * TOKENS:
                break
        rows = [ids[i : i + TOKENS] for i in range(0, steps * BATCH * TOKENS, TOKENS)]
    torch.manual_seed(0)
    if task == "electra":
        train = Electra(attention)
    else:
        sizes = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
        config = transformers.BertConfig(**sizes)
        config._attn_implementation = attention
        train = transformers.BertForMaskedLM(config)
    train.train()
    optimiser = torch.optim.AdamW(train.parameters(), lr=1e-4, fused=best or None)
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    pace, seconds, tokens = Pace(), 0.0, 0
    for step in range(steps):
        started = time.perf_counter()
        part = [{"input_ids": row} for row in rows[step * BATCH : (step + 1) * BATCH]]
        batch = collator(part)
        with torch.autocast("cpu", torch.bfloat16) if best else nullcontext():
            found = train(**batch)
            loss = found if isinstance(found, torch.Tensor) else found.loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(train.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seconds += time.perf_counter() - started
        tokens += sum(len(row["input_ids"]) for row in part)
        pace.note(tokens, seconds, products=task == "mlm")
    return {**pace.figures(), "peak_bytes": peers.peak_memory()}


def gemm_rate(*, tokens: int = 4096, width: int = 1536, seconds: float = 0.5) -> float:
    """Median rate of bf16 products in FLOP/s, with matrices large enough to be bound by arithmetic."""
    x, weight = torch.randn(tokens, width).bfloat16(), torch.randn(width, width).bfloat16()
    times = []
    while sum(times) < seconds:
        started = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        times.append(time.perf_counter() - started)
    return 2 * tokens * width * width / statistics.median(times[2:])


def main() -> None:
    """Alternate the sides and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("mlm", "lines", "electra"), required=True)
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        torch.set_num_threads(given.threads)
        texts = text_of(given.task, given.data)
        found = ours(given.task, texts) if given.side == "ours" else peer(given.side, given.task, texts)
        print(json.dumps(found))
        return
    sides = given.sides.split(",")
    seen: dict[str, list[alternating.Figures]] = {}
    options = ["--task", given.task, "--data", str(given.data), "--threads", str(given.threads)]
    for _ in range(given.rounds):
        alternating.one_round(__file__, sides, options, seen)
    medians = alternating.medians(seen)
    result: dict[str, object] = {"benchmark": "pretrain_vs_hf", "task": given.task, "threads": given.threads}
    result |= {"rounds": given.rounds, "median": medians, **peers.environment()}
    if set(SIDES) <= set(sides):
        speed = {side: medians[side]["tokens_per_second"] for side in SIDES}
        result["ratios"] = {
            "vs_documented": speed["ours"] / speed["documented"],
            "vs_best": speed["ours"] / max(speed["best_sdpa"], speed["best_eager"]),
        }
    alternating.publish(result, given.out)


if __name__ == "__main__":
    main()

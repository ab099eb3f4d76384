"""What each trick of pretraining gains: our own step with one of them put back to the plain way, each by itself.

    python benchmarks/pretrain_ablation.py --task mlm --out benchmarks/results/pretrain_ablation.jsonl
    python benchmarks/pretrain_ablation.py --table

The work is that of ``pretrain_vs_hf.py``: BERT in MiniLM's shape, steps of 32 sequences, dropout 0.1. The tricks are no
settings of the product: here functions are replaced by plain ones. Each variant has a process of its own, alternately;
real tokens a second are the median of a run's steps behind the first three, and then of the rounds. ``--check`` leaves
dropout out and computes in fp32: then the losses of all variants must be the same, but for ``padding``, whose padded
places are read as tokens (the time is the same).
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import alternating
import peers
import pretrain_vs_hf
from tunesmith.nn import attend as attention
from tunesmith.nn import cross_entropy, dropout
from tunesmith.objectives import Batch, Piece, _run
from tunesmith.objectives._masking import documents_of
from tunesmith.objectives._packing import packed
from tunesmith.objectives.mlm import MLM
from tunesmith.train import precision
from tunesmith.train.optim import decaying
from tunesmith.train.optim.adamw import AdamWConfig


def put(before: Any, after: Any) -> None:
    """One function in the place of another, wherever it was imported."""
    for name, module in list(sys.modules.items()):
        if name.startswith("tunesmith"):
            for key, value in list(vars(module).items()):
                if value is before:
                    setattr(module, key, after)


def loss_at_all_tokens() -> None:
    """The head, the vocabulary and the last block run on every token; those that are not predicted count for nothing.

    Rows of zeros give no gradient to the matrix, and a loss of the bias alone, which is taken off again.
    """

    def lm_loss(model, batch):
        hidden, head = _run.hidden_states(model, batch, None), _run.lm_of(model)
        labels = batch.labels.new_zeros(len(hidden)).index_copy(0, batch.rows, batch.labels)
        wanted = hidden.new_zeros(len(hidden), 1).index_fill(0, batch.rows, 1)
        x = head._transformed(hidden, hidden.dtype) * wanted
        total = cross_entropy.linear_cross_entropy(x, head.output.weight, head.bias, labels)
        bias = head.bias.to(x.dtype).float()
        return total - (len(hidden) - len(batch.rows)) * (bias.logsumexp(0) - bias[0])

    put(_run.lm_loss, lm_loss)


def plain_cross_entropy() -> None:
    """All logits at once, in fp32, kept for the backward pass."""

    def loss(x, weight, bias, labels):
        x = x[: len(labels)]  # rows behind them only round their number
        logits = F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        return F.cross_entropy(logits.float(), labels, reduction="sum")

    put(cross_entropy.linear_cross_entropy, loss)


def plain_head() -> None:
    """The vocabulary at all tokens by whole logits, as transformers has it."""

    def lm_loss(model, batch):
        hidden, head = _run.hidden_states(model, batch, None), _run.lm_of(model)
        labels = batch.labels.new_full((len(hidden),), -100).index_copy(0, batch.rows, batch.labels)
        logits = F.linear(
            head._transformed(hidden, hidden.dtype), *(x.to(hidden.dtype) for x in (head.output.weight, head.bias))
        )
        return F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=-100)

    put(_run.lm_loss, lm_loss)


def whole_last_block() -> None:
    """The last block runs on every token; those that are predicted are taken behind it."""
    before = _run.hidden_states

    def hidden_states(model, batch, rows):
        found = before(model, batch, None)
        return found if rows is None else found.index_select(0, rows)

    put(before, hidden_states)


def padding() -> None:
    """Sequences are filled up to the longest of their batch."""

    def prepare(self, drawn, *, device="cpu"):
        pieces = [piece for one in drawn for piece in documents_of(one.sample, self.masking(one))]
        longest = max(len(piece.ids) for piece in pieces)
        source, rows, labels = packed([filled(piece, longest) for piece in pieces], device=device)
        return Batch(len(drawn), sum(len(piece.ids) for piece in pieces), source, rows=rows, labels=labels)

    def filled(piece: Piece, length: int) -> Piece:
        more = (0, length - len(piece.ids))
        segments = None if piece.segments is None else np.pad(piece.segments, more)
        return replace(piece, ids=np.pad(piece.ids, more), segments=segments)

    MLM.prepare = prepare


def torch_attention() -> None:
    """The attention of torch, ``scaled_dot_product_attention``, with its own dropout."""

    def attend(query, key, value, layout, *, num_heads, scale, dropout=0.0, reach=None, **rest):
        assert reach is not None
        rate = 0.0 if layout.noise is None else dropout
        found = []
        for group in layout.groups:
            q = attention._ToBins.apply(query, group.queries, group.size, num_heads)
            k, v = (attention._ToBins.apply(x, group.keys, group.size, num_heads) for x in (key, value))
            bias = group.bias_within(reach, query.device)
            mask = None if bias is None else bias[:, None].to(q.dtype)
            found.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate, scale=scale))
        real = layout.num_tokens if isinstance(layout, attention.Layout) else layout.num_queries
        return attention._FromBins.apply([group.queries for group in layout.groups], len(query), real, *found)

    def attend_packed(packed, layout, *, query=None, **rest):
        *own, key, value = packed.chunk(3 if query is None else 2, 1)
        return attend(own[0] if query is None else query, key, value, layout, **rest)

    put(attention.attend, attend)
    put(attention.attend_packed, attend_packed)


def torch_dropout() -> None:
    """Dropout of torch: a random number for each value."""

    def drop(x, rate, noise):
        return F.dropout(x, rate, training=noise is not None)

    def drop_add(x, residual, rate, noise):
        return residual + drop(x, rate, noise)

    def kept(shape, rate, noise):
        if noise is None or not rate:
            return None
        return torch.empty(shape, dtype=torch.bool).bernoulli_(1 - rate, generator=noise), 1 / (1 - rate)

    for before, after in ((dropout.dropout, drop), (dropout.dropout_add, drop_add), (dropout.draw_kept, kept)):
        put(before, after)


def plain_adamw() -> None:
    """AdamW as torch has it by default."""

    def build(self, parameters, *, learning_rate, weight_decay):
        return torch.optim.AdamW(
            decaying(parameters, weight_decay), lr=learning_rate, betas=(self.beta1, self.beta2), eps=self.epsilon
        )

    AdamWConfig.build = build


def plain_memory() -> None:
    """Freed blocks go back to the kernel."""
    put(precision.reuse_memory, lambda: None)


@dataclass(frozen=True)
class Variant:
    """Our step with something put back.

    Attributes:
        title: What is left out, for the table.
        replace: Puts the plain way in.
        settings: That say it.
        base: What it is measured against.
        tasks: Where it means anything.
    """

    title: str
    replace: tuple[Callable[[], None], ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    base: str = "base"
    tasks: tuple[str, ...] = ("mlm", "lines")


FP32: dict[str, object] = {"train.precision": "fp32"}
NO_DROPOUT: dict[str, object] = {"model.dropout": 0.0}
ALL = (plain_head, torch_attention, torch_dropout, plain_adamw, plain_memory)
VARIANTS = {
    "base": Variant("nothing: the product"),
    "head": Variant("loss at masked tokens only", (loss_at_all_tokens,)),
    "cross_entropy": Variant("vocabulary loss by blocks", (plain_cross_entropy,)),
    "last_block": Variant("last block at masked tokens only", (whole_last_block,)),
    "padding": Variant("no padding", (padding,), tasks=("lines",)),
    "precision": Variant("bf16", settings=FP32),
    "attention": Variant("own attention", (torch_attention,)),
    "dropout": Variant("dropout from bytes", (torch_dropout,)),
    "optimiser": Variant("fused AdamW", (plain_adamw,)),
    "memory": Variant("freed memory kept", (plain_memory,)),
    "still": Variant("dropout at all", settings=NO_DROPOUT),
    "still_attention": Variant("own attention, both without dropout", (torch_attention,), NO_DROPOUT, base="still"),
    "all": Variant("all of them but bf16", ALL),
    "all_fp32": Variant("all of them", ALL, FP32),
}


def measure(name: str, task: str, texts: list[str], steps: int, *, check: bool) -> dict[str, float]:
    """One variant, by the public call."""
    import tunesmith

    variant = VARIANTS[name]
    settings = {**pretrain_vs_hf.our_settings(task, steps), **variant.settings}
    if check:
        settings |= {**FP32, **NO_DROPOUT}
    for plain in variant.replace:
        plain()
    if task == "lines" and name in ("all", "all_fp32"):
        padding()
    times: list[tuple[int, float, float]] = [(0, 0.0, 0.0)]

    class Watch:
        """Notes each step."""

        def note(self, text: str) -> None: ...
        def stage(self, title: str) -> None: ...

        def step(self, progress, spent: float) -> None:
            times.append((progress.tokens, progress.seconds, progress.last_loss))

    with tempfile.TemporaryDirectory() as folder:
        joined = ("\n" if task == "lines" else "\n\n").join(texts)
        (Path(folder) / "corpus.txt").write_text(joined, encoding="utf-8")
        (Path(folder) / "recipe.toml").write_text("", encoding="utf-8")
        out, corpus = Path(folder) / "run", Path(folder) / "corpus.txt"
        tunesmith.pretrain(str(Path(folder) / "recipe.toml"), corpus, out=out, settings=settings, listener=Watch())
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    pairs = list(zip(times, times[1:], strict=False))[pretrain_vs_hf.WARM :]
    speed = statistics.median((b[0] - a[0]) / (b[1] - a[1]) for a, b in pairs)
    return {"tokens_per_second": speed, "peak_bytes": metrics["peak_memory_bytes"], "loss": times[-1][2]}


def table(rows: list[dict]) -> str:
    """Markdown: each trick's gain, the newest result of each task."""
    lines = []
    for task, row in {row["task"]: row for row in rows}.items():
        lines += [f"| `{task}` without | tokens/s | gain of the trick | memory |", "|---|---|---|---|"]
        for name, found in row["median"].items():
            gain = "" if name == "base" else f"{row['gains'][name]:.2f}"
            memory = f"{found['peak_bytes'] / 1e9:.2f} GB"
            lines.append(f"| {VARIANTS[name].title} | {found['tokens_per_second']:.0f} | {gain} | {memory} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Alternate the variants and print medians and gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("mlm", "lines"), default="mlm")
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--variants", default=",".join(VARIANTS), help="base is always among them")
    parser.add_argument("--check", action="store_true", help="compare losses, not speeds")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.table:
        results = given.out or Path(__file__).parent / "results" / "pretrain_ablation.jsonl"
        print(table([json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]))
        return
    if given.side:
        torch.set_num_threads(given.threads)
        texts = pretrain_vs_hf.text_of(given.task, given.data)
        if given.task == "mlm":  # as much as is read
            texts = texts[: max(2, len(texts) * given.steps // 200)]
        print(json.dumps(measure(given.side, given.task, texts, given.steps, check=given.check)))
        return
    chosen = [name for name in VARIANTS if name in ("base", *given.variants.split(","))]
    sides = [name for name in chosen if given.task in VARIANTS[name].tasks]
    options = ["--task", given.task, "--data", str(given.data), "--threads", str(given.threads)]
    options += ["--steps", str(given.steps), *(["--check"] if given.check else [])]
    seen: dict[str, list[alternating.Figures]] = {}
    for _ in range(given.rounds):
        alternating.one_round(__file__, sides, options, seen)
    medians = alternating.medians(seen)
    speed = {name: found["tokens_per_second"] for name, found in medians.items()}
    gains = {name: speed[VARIANTS[name].base] / value for name, value in speed.items() if VARIANTS[name].base in speed}
    result: dict[str, object] = {"benchmark": "pretrain_ablation", "task": given.task, "threads": given.threads}
    result |= {"rounds": given.rounds, "check": given.check, "median": medians, "gains": gains}
    alternating.publish({**result, **peers.environment()}, given.out)


if __name__ == "__main__":
    main()

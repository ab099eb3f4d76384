"""Length behaviour of position encodings: trained on 128 bytes of context, read on up to 1,024.

    python benchmarks/positions.py --out benchmarks/results/positions.jsonl --keep /tmp/positions

A causal model of 4 layers x 192 over bytes, from the same first weights, batches and schedule but for its positions, is
trained on documents of exactly 128 bytes and scored on held-out text cut into windows of 1, 1.5, 2, 4 and 8 times that
length: bits per byte over the places beyond the training length, and over all. RoPE is then stretched, as it is and
after a short fine-tuning at 8 times the length. Results are JSON lines; what they already hold is skipped, weights are
kept in ``--keep``. ``--plot FOLDER`` draws what is there, ``--table`` prints it.
"""

import argparse
import gzip
import json
import math
import statistics
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import alternating
import peers
from tunesmith.base.layout import make_layout
from tunesmith.models.model import Model, ModelConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.init import init_normal
from tunesmith.nn.transformer import TransformerConfig
from tunesmith.train.precision import reuse_memory

TRAINED = 128
LENGTHS = (128, 192, 256, 512, 1024)
LONGEST = LENGTHS[-1]
SCORED = 32 * LONGEST
BATCH_TOKENS = 16 * TRAINED
VARIANTS = ("alibi", "rope", "sinusoidal", "learned", "none", "t5_bias")
FACTOR = LONGEST / TRAINED
STRETCHED = {
    "rope": None,
    "rope_linear": {"kind": "linear", "factor": FACTOR},
    "rope_ntk": {"kind": "ntk", "factor": FACTOR},
    "rope_yarn": {"kind": "yarn", "factor": FACTOR, "original": TRAINED},
}
SHOWN = {
    "alibi": "ALiBi",
    "rope": "RoPE",
    "sinusoidal": "sinusoidal",
    "learned": "learned (longer table, rows beyond 128 untrained)",
    "none": "none",
    "t5_bias": "T5 bias",
    "rope_linear": "RoPE, Position Interpolation",
    "rope_ntk": "RoPE, NTK-aware",
    "rope_yarn": "RoPE, YaRN",
}


def position_of(variant: str) -> dict[str, object]:
    """The setting of a variant."""
    if variant.startswith("rope"):
        return {"name": "rope", "extension": STRETCHED[variant]}
    return {"name": variant}


def make_model(variant: str, seed: int) -> Model:
    """Fresh weights; those that are not of positions are the same in all variants."""
    width = 192
    decoder = TransformerConfig(
        vocab_size=256,
        d_model=width,
        d_embedding=width,
        num_layers=4,
        num_heads=6,
        d_ff=4 * width,
        max_positions=LONGEST,
        num_segments=0,
        causal=True,
        order="pre",
        biases="none",
        feedforward_bias=False,
        embedding_norm=False,
        embedding_scale=math.sqrt(width),
        dropout=0.0,
        attention_dropout=0.0,
        position=position_of(variant),
        feedforward="gelu",
        norm={"name": "layer_norm", "eps": 1e-5},
        initial_residual="by_depth",
    )
    model = Model(ModelConfig(family="custom", decoder=decoder, head=LMConfig(activation=None, bias=False)))
    init_normal(model, std=decoder.initial_std, residual_std=decoder.residual_std, seed=seed, name="positions")
    return model


def read_corpus(data: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes of training and of held-out text."""
    folder = data / "corpus_en_novels"
    train = gzip.decompress((folder / "train.txt.gz").read_bytes())
    held = (folder / "dev.txt").read_bytes()
    return tuple(torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64)) for text in (train, held))


def train(model: Model, corpus: torch.Tensor, *, length: int, steps: int, peak: float, seed: int) -> float:
    """AdamW, linear warm-up over 5 %, cosine to a tenth; the seconds that it took."""
    model.train()
    model.compute_dtype = torch.bfloat16
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), foreach=True)
    count = BATCH_TOKENS // length
    layout = make_layout([length] * count)
    stream = np.random.default_rng((seed, length))
    began, shown = time.perf_counter(), 0.0
    for step in range(steps):
        done = (step + 1) / steps
        rate = min(done / 0.05, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimiser.param_groups:
            group["lr"] = peak * rate
        starts = torch.from_numpy(stream.integers(0, len(corpus) - length - 1, count))
        rows = corpus[starts[:, None] + torch.arange(length + 1)]
        logits = model.logits(rows[:, :-1].reshape(-1), layout)
        loss = F.cross_entropy(logits.float(), rows[:, 1:].reshape(-1))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        shown = loss.item() if step == 0 else 0.95 * shown + 0.05 * loss.item()
        if step % 100 == 99:
            print(
                f"  {step + 1} steps: {shown / math.log(2):.3f} bits, {time.perf_counter() - began:.0f} s", flush=True
            )
    return time.perf_counter() - began


@torch.no_grad()
def score(model: Model, held: torch.Tensor) -> dict[str, dict[str, float]]:
    """Bits per byte by length: over all places of the windows, and over those beyond the training length."""
    model.eval()
    model.compute_dtype = None
    found: dict[str, dict[str, float]] = {}
    for length in LENGTHS:
        count = SCORED // length
        rows = held[: count * length + 1]
        parts = []
        for first in range(0, count, BATCH_TOKENS // length):
            windows = range(first, min(count, first + BATCH_TOKENS // length))
            here = slice(windows[0] * length, (windows[-1] + 1) * length)
            logits = model.logits(rows[here], make_layout([length] * len(windows)))
            targets = rows[here.start + 1 : here.stop + 1]
            parts.append(F.cross_entropy(logits, targets, reduction="none").view(-1, length))
        bits = torch.cat(parts) / math.log(2)
        found[str(length)] = {"all": bits.mean().item()}
        if length > TRAINED:
            found[str(length)]["beyond"] = bits[:, TRAINED:].mean().item()
        if length == LONGEST:
            found["places"] = {str(64 * i): part.mean().item() for i, part in enumerate(bits.split(64, 1))}
    return found


def run(arguments: argparse.Namespace) -> None:
    """Whatever is missing in the results, in order of importance."""
    torch.set_num_threads(arguments.threads)
    reuse_memory()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    corpus, held = read_corpus(arguments.data)
    jobs = []
    for seed in range(arguments.seeds):
        variants = [(name, seed, False) for name in arguments.variants.split(",")]
        stretched = [(name, seed, tuned) for tuned in (False, True) for name in STRETCHED if tuned or name != "rope"]
        jobs += [*variants[:4], *stretched, *variants[4:]]
    for variant, seed, tuned in jobs:
        done = {(row["variant"], row["seed"], row["tuned"]) for row in rows_of(arguments.out)}
        if (variant, seed, tuned) in done:
            continue
        print(variant, seed, "fine-tuned" if tuned else "", flush=True)
        model = make_model(variant, seed)
        weights = arguments.keep / f"{'rope' if variant in STRETCHED else variant}-{seed}-{arguments.steps}.safetensors"
        seconds = 0.0
        if weights.exists():
            model.load_state_dict(load_file(weights))
        else:
            seconds = train(model, corpus, length=TRAINED, steps=arguments.steps, peak=arguments.peak, seed=seed)
            save_file(model.state_dict(), weights)
        if tuned:
            rate = arguments.peak / 5
            seconds = train(model, corpus, length=LONGEST, steps=arguments.more, peak=rate, seed=seed)
        result = {"benchmark": "positions", "variant": variant, "seed": seed, "tuned": tuned, "seconds": seconds}
        result |= {"steps": arguments.steps, "more": arguments.more if tuned else 0, "bits": score(model, held)}
        alternating.publish({**result, **peers.environment()}, arguments.out)


def rows_of(path: Path) -> list[dict]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def mean(rows: list[dict], variant: str, tuned: bool, length: int | str, kind: str) -> float | None:
    """Over the seeds."""
    found = [row["bits"][str(length)][kind] for row in rows if row["variant"] == variant and row["tuned"] == tuned]
    return statistics.mean(found) if found else None


def table(rows: list[dict]) -> str:
    """Markdown: bits per byte beyond the training length, and over all in brackets."""
    lines = ["| positions | " + " | ".join(f"{n / TRAINED:g}x" for n in LENGTHS) + " |"]
    lines.append("|---|" + "---|" * len(LENGTHS))
    for tuned in (False, True):
        for variant, shown in SHOWN.items():
            cells = []
            for length in LENGTHS:
                every = mean(rows, variant, tuned, length, "all")
                if every is None:
                    break
                beyond = mean(rows, variant, tuned, length, "beyond") if length > TRAINED else None
                cells.append(f"{every:.3f}" if beyond is None else f"{beyond:.3f} ({every:.3f})")
            if cells:
                lines.append(f"| {shown}{', fine-tuned' if tuned else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: list[dict], folder: Path) -> None:
    """Bits beyond the training length by length; and by place at 8 times the length, with RoPE stretched."""
    shown = [name for name in VARIANTS if mean(rows, name, False, LONGEST, "all") is not None]
    figure, axes = plt.subplots(figsize=(7, 4))
    for name in shown:
        bits = [mean(rows, name, False, n, "beyond" if n > TRAINED else "all") for n in LENGTHS]
        axes.plot([n / TRAINED for n in LENGTHS], bits, marker="o", label=SHOWN[name])
    axes.set(xscale="log", xlabel="length / training length", ylabel="bits per byte beyond the training length")
    axes.set_xticks([n / TRAINED for n in LENGTHS], [f"{n / TRAINED:g}" for n in LENGTHS])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(folder / "positions_length.png", dpi=110, bbox_inches="tight")
    figure, axes = plt.subplots(figsize=(7, 4))
    for i, name in enumerate(STRETCHED):
        for tuned in (False, True):
            found = [row["bits"]["places"] for row in rows if row["variant"] == name and row["tuned"] == tuned]
            if found:
                places = [int(place) + 32 for place in found[0]]
                bits = np.mean([list(part.values()) for part in found], 0)
                label = SHOWN[name] + (", fine-tuned" if tuned else "")
                axes.plot(places, bits, color=f"C{i}", linestyle="-" if tuned else ":", label=label)
    axes.axvline(TRAINED, color="grey", linewidth=0.8)
    axes.set(xlabel="place in a window of 1,024 bytes", ylabel="bits per byte")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(folder / "positions_rope.png", dpi=110, bbox_inches="tight")


def main() -> None:
    """Measure what is missing, draw or print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "positions.jsonl")
    parser.add_argument("--keep", type=Path, default=Path("/tmp/positions"), help="folder for weights")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--more", type=int, default=100, help="steps of fine-tuning at the long length")
    parser.add_argument("--peak", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="folder for the plots")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.plot is None and not arguments.table:
        run(arguments)
        return
    rows = rows_of(arguments.out)
    if arguments.plot is not None:
        plot(rows, arguments.plot)
    if arguments.table:
        print(table(rows))


if __name__ == "__main__":
    main()

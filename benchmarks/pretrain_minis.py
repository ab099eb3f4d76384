"""Every mini recipe on real text: time, loss against the best constant guess, and what transformers says of the result.

    python benchmarks/pretrain_minis.py --out benchmarks/results/pretrain_minis.jsonl
    python benchmarks/pretrain_minis.py --table
    python benchmarks/pretrain_minis.py --plot docs/images/pretrain_minis.png

Each recipe is run as its user would, by `tunesmith pretrain RECIPE --corpus FOLDER`, in a process of its own. The
folder that it leaves is loaded by the transformers class that its config.json names, and both sides read 100 held-back
texts in fp32: losses of masked tokens (15 %), of next tokens, of a decoder's own input, or of "replaced", as the head
has it. Where transformers has no class of that name (DeBERTaV3's detection), hidden states are compared.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F

import alternating
import peers

RECIPES = (
    "bert", "roberta", "albert", "electra", "deberta_v3", "bart", "t5", "mass", "xlnet", "spanbert", "gpt2", "llama",
    "modernbert",
)  # fmt: skip
TEXTS = 100
RESULTS = peers.REPOSITORY / "benchmarks" / "results" / "pretrain_minis.jsonl"


def run(recipe: str, corpus: Path, out: Path, settings: list[str]) -> dict[str, object]:
    """Pretrain, and compare."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "tunesmith", "pretrain", recipe, "--corpus", str(corpus), "--out", str(out)]
    subprocess.run([*command, *settings], check=True)
    seconds = time.perf_counter() - started
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    curve = json.loads((out / "curve.json").read_text(encoding="utf-8"))
    keys = ("validation_loss", "constant_loss", "steps", "tokens", "tokens_per_second", "total_parameters")
    found = {"recipe": recipe, "seconds": seconds, **{key: metrics[key] for key in keys}, "dev": metrics["dev"]}
    points = [[point["tokens"], point["seconds"], point["dev_loss"]] for point in curve]
    return found | {"constant_losses": metrics["constant_losses"], "curve": points} | compare(out, corpus)


def compare(folder: Path, corpus: Path) -> dict[str, object]:
    """The loss of 100 held-back texts by transformers and by us."""
    import transformers

    import tunesmith

    name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    known = hasattr(transformers, name)
    kind = getattr(transformers, name) if known else transformers.AutoModel
    theirs = kind.from_pretrained(folder, attn_implementation="eager").eval()
    ours = tunesmith.load(folder)
    assert ours.tokenizer is not None
    documents = (corpus / "dev.txt").read_text(encoding="utf-8").split("\n\n")
    settings = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
    encoded = ours.tokenizer.encode(documents[:TEXTS], max_tokens=settings["data"]["max_tokens"]).ids
    stream = torch.Generator().manual_seed(0)
    sums = {"ours": 0.0, "transformers": 0.0}
    count, gap, largest = 0, 0.0, 0.0
    for ids in encoded:
        row = torch.tensor([ids])
        with torch.no_grad():
            inputs, labels = _question(row, theirs, ours, stream)
            mine, his = ours(**inputs), theirs(**inputs)
            a, b = (mine.logits, _logits(his)) if known else (mine.hidden, his.last_hidden_state)
        gap = max(gap, float((a - b).abs().max()))
        largest = max(largest, float(b.abs().max()))
        for side, logits in (("ours", a), ("transformers", b)) if known else ():
            sums[side] += float(_loss(logits, labels))
        count += int((labels != -100).sum())
    losses = {f"loss_{side}": total / count if known else None for side, total in sums.items()}
    return {
        "class": kind.__name__ if known else type(theirs).__name__,
        **losses,
        "largest_difference": gap,
        "largest_logit": largest,
    }


def _question(row, theirs, ours, stream):
    """Inputs, and what is to be said of them."""
    if theirs.config.is_encoder_decoder:
        start = theirs.config.decoder_start_token_id
        return {"input_ids": row, "decoder_input_ids": torch.cat([torch.tensor([[start]]), row[:, :-1]], 1)}, row
    if ours.encoder is None:
        labels = torch.cat([row[:, 1:], torch.tensor([[-100]])], 1)
        return {"input_ids": row}, labels
    chosen = torch.rand(row.shape, generator=stream) < 0.15
    if "PreTraining" in type(theirs).__name__ and ours.config.head.choice_name() == "rtd":
        changed = torch.where(chosen, torch.randint(10, ours.tokenizer.vocab_size, row.shape, generator=stream), row)
        return {"input_ids": changed}, (changed != row).long()
    chosen[0, 1] = True
    mask = next(ours.tokenizer.token_id(name) for name in ("[MASK]", "<mask>") if ours.tokenizer.token_id(name))
    return {"input_ids": row.masked_fill(chosen, mask)}, row.masked_fill(~chosen, -100)


def _logits(output):
    """Of the language model, where a pretraining class answers two questions."""
    return output.prediction_logits if "prediction_logits" in output else output.logits


def _loss(logits, labels):
    if logits.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")
    return F.cross_entropy(logits[0], labels[0], reduction="sum")


def results(path: Path) -> dict[str, dict]:
    """What was found of each recipe; the last line counts."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    last = {one["recipe"]: one for one in found}
    return {name: last[name] for name in RECIPES if name in last}


def plot(rows: dict[str, dict], picture: Path) -> None:
    """Draw the dev loss of each recipe over minutes, beside the best constant guess."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    for i, (name, row) in enumerate(rows.items()):
        axis = figure.add_subplot(3, 5, i + 1)
        axis.plot([seconds / 60 for _, seconds, _ in row["curve"]], [loss for _, _, loss in row["curve"]], marker=".")
        axis.axhline(row["constant_loss"], color="grey", linestyle=":")
        axis.set_title(f"{name}_mini", fontsize=10)
    figure.supxlabel("minutes of training")
    figure.supylabel("dev loss, nats (dotted: best constant guess)")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=80)


def table(rows: dict[str, dict]) -> str:
    """The results as Markdown."""
    lines = [
        "| recipe | whole run | steps | tokens/s | dev loss | constant guess | below it | transformers class | "
        "its loss on 100 texts | ours |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in rows.items():
        below = 1 - r["validation_loss"] / r["constant_loss"]
        lines.append(
            f"| {name}_mini | {r['seconds']:.0f} s | {r['steps']} | {r['tokens_per_second']:.0f} | "
            f"{r['validation_loss']:.3f} | {r['constant_loss']:.3f} | {below:.1%} | `{r['class']}` | "
            + (
                f"{r['loss_transformers']:.5f} | {r['loss_ours']:.5f} |"
                if r["loss_ours"] is not None
                else f"no such head: hidden states | differ by at most {r['largest_difference']:.1g} |"
            )
        )
    return "\n".join(lines)


def main() -> None:
    """Run the recipes that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the results of --out as a table")
    parser.add_argument("--plot", type=Path, help="draw the results of --out into this PNG file")
    parser.add_argument("settings", nargs="*", help="settings for all of them, as key=value")
    given = parser.parse_args()
    if given.table or given.plot:
        rows = results(given.out)
        if given.plot:
            plot(rows, given.plot)
        if given.table:
            print(table(rows))
        return
    for recipe in given.recipes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found = run(recipe, given.data / "corpus_enwiki", Path(folder) / "run", given.settings)
        alternating.publish({**found, **peers.environment()}, given.out)


if __name__ == "__main__":
    main()

"""Quality of masked language modelling beside transformers: at equal tokens, and at equal minutes.

    python benchmarks/pretrain_quality.py --out benchmarks/results/pretrain_quality.jsonl
    python benchmarks/pretrain_quality.py --plot docs/images/pretrain_quality.png
    python benchmarks/pretrain_quality.py --table

Further settings of both sides are given by ``--set``, such as ``--set 'model.checkpoint="FOLDER"'``.

A small BERT without dropout, for each seed from the same weights on both sides: ours are saved and loaded by
transformers' ``BertForMaskedLM``. Both see the same blocks under the same masks in the same order, and have the same
AdamW, schedule and clipping. Ours is `tunesmith.pretrain`; transformers' is a loop with bf16 autocast, fused AdamW and
the faster of its attentions. Then ours trains again for as many seconds as transformers took, the learning rate ending
with them. Each run has a process of its own. Both are measured in fp32 on the same held-back blocks and masks; seconds
are those of training alone, and transformers' batches are made before its clock starts.
"""

import argparse
import dataclasses
import gzip
import json
import statistics
import tempfile
import time
import tomllib
from pathlib import Path

import numpy as np
import torch

import alternating
import peers
from tunesmith.models._checkpoint import save
from tunesmith.models.model import Model
from tunesmith.objectives.mlm import MLM
from tunesmith.recipes import pretrain
from tunesmith.recipes.corpus import Ready, make_ready
from tunesmith.recipes.feed import Feed
from tunesmith.recipes.learner import Trainee, make_learner
from tunesmith.recipes.listener import Silent
from tunesmith.recipes.pretrain_settings import PretrainSettings, pretrain_settings
from tunesmith.recipes.settings import nested
from tunesmith.recipes.validation import Losses, Validation
from tunesmith.text.sample import Drawn
from tunesmith.train.checkpoint import Progress
from tunesmith.train.precision import Machine
from tunesmith.train.schedule import Moment

CPU = Machine(torch.device("cpu"), torch.float32, "as measured")
Dense = tuple[torch.Tensor, torch.Tensor]
Curve = list[list[float]]
"""Points of tokens, training seconds, dev loss, and training loss since the point before."""


class Exact(Validation):
    """The dev split in fp32, whatever the model trains in."""

    def losses(self, trainee: torch.nn.Module) -> Losses:
        """Losses of what trains, as it is now."""
        model = trainee.get_submodule("model")
        assert isinstance(model, Model)
        before, model.compute_dtype = model.compute_dtype, None
        try:
            return super().losses(trainee)
        finally:
            model.compute_dtype = before


@dataclasses.dataclass(frozen=True)
class Setup:
    """What both sides begin with.

    Attributes:
        settings: Of the run.
        ready: The corpus as token ids.
        model: Fresh.
        objective: Makes the masks.
    """

    settings: PretrainSettings
    ready: Ready
    model: Model
    objective: MLM

    @classmethod
    def make(cls, given: argparse.Namespace) -> "Setup":
        """Read or make them."""
        settings = pretrain_settings(str(given.folder / "recipe.toml"), nested(options(given)))
        ready = make_ready(given.folder / "corpus", given.folder / "tokenizer", settings, Silent())
        model, objective = make_learner(settings, ready, Silent())
        assert isinstance(objective, MLM)
        return cls(settings, ready, model, objective)

    def validation(self) -> Exact:
        """The held-back blocks."""
        return Exact(self.ready.dev, self.ready.vocabulary.frame, self.objective, self.settings, CPU)


def options(given: argparse.Namespace) -> dict[str, object]:
    """Settings of our run."""
    found: dict[str, object] = {
        "model.preset": "bert_mini",
        "model.num_layers": given.layers,
        "model.d_model": given.width,
        "model.num_heads": given.width // 64,
        "model.d_ff": 4 * given.width,
        "model.dropout": 0.0,
        "objective.name": "mlm",
        "objective.rate": given.masked,
        "input.name": "blocks",
        "data.max_tokens": given.tokens,
        "data.dev_sequences": given.dev,
        "vocabulary.vocab_size": given.vocabulary,
        "vocabulary.lowercase": True,
        "train.batch_size": given.batch,
        "train.micro_batch_tokens": given.batch * given.tokens,
        "train.learning_rate": given.rate,
        "train.optimiser.name": "adamw",
        "train.optimiser.beta2": 0.98,
        "train.warmup": 0.1,
        "train.evaluations": given.looks,
        "train.seed": given.seed,
    }
    if (given.folder / "tokenizer" / "tokenizer.json").exists():
        found["tokenizer"] = str(given.folder / "tokenizer")
    found |= overrides(given)
    end = {"train.max_steps": given.steps} if given.minutes is None else {"train.minutes": given.minutes}
    return found | end


def overrides(given: argparse.Namespace) -> dict[str, object]:
    """Further settings of the run, which both sides have: "key=TOML value" each."""
    return {
        name: tomllib.loads(f"value = {value}")["value"] for name, _, value in (o.partition("=") for o in given.set)
    }


def ours(given: argparse.Namespace) -> dict[str, object]:
    """Our run, by its public call; only its looks at the dev split are in fp32."""
    import tunesmith

    pretrain.Validation = Exact
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        recipe, corpus = str(given.folder / "recipe.toml"), given.folder / "corpus"
        tunesmith.pretrain(recipe, corpus, out=out, settings=options(given))
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        points = json.loads((out / "curve.json").read_text(encoding="utf-8"))
    curve = [[point[name] for name in ("tokens", "seconds", "dev_loss", "train_loss")] for point in points]
    return {"curve": curve, "precision": metrics["precision"], "steps": metrics["steps"]}


def dense(drawn: list[Drawn], masking: MLM) -> Dense:
    """Sequences of one length as transformers takes them: ids, and labels that are -100 where nothing is predicted."""
    masked = [masking.masking(one) for one in drawn]
    ids = torch.from_numpy(np.stack([one.ids for one in masked]).astype(np.int64))
    labels = torch.full_like(ids, -100)
    for row, one in zip(labels, masked, strict=True):
        row[torch.from_numpy(one.places)] = torch.from_numpy(one.labels.astype(np.int64))
    return ids, labels


def batches_of(setup: Setup, steps: int) -> list[Dense]:
    """The batches of the first steps, as our own run makes them."""
    feed = Feed(setup.ready.train, setup.ready.vocabulary.frame, setup.settings)
    progress = Progress()
    return [dense([feed.draw(place) for place in feed.step(progress, 0.0)], setup.objective) for _ in range(steps)]


def dev_of(validation: Validation) -> list[Dense]:
    """The held-back blocks under the masks of all looks."""
    from tunesmith.base.random import numpy_stream

    drawn = [Drawn(sample, numpy_stream("dev mask", number)) for number, sample in validation.samples.items()]
    assert isinstance(validation.objective, MLM)
    return [dense(drawn[i : i + 32], validation.objective) for i in range(0, len(drawn), 32)]


@torch.no_grad()
def loss_of(model: torch.nn.Module, batches: list[Dense]) -> float:
    """Mean loss of the predicted tokens, in fp32."""
    model.eval()
    total, count = 0.0, 0
    for ids, labels in batches:
        targets = int((labels != -100).sum())
        total += float(model(input_ids=ids, labels=labels).loss) * targets
        count += targets
    model.train()
    return total / count


class Peer:
    """transformers' model with the loop that its users write.

    Args:
        folder: The weights to begin with.
        attention: Its implementation.
        setup: What both sides begin with.
    """

    def __init__(self, folder: Path, attention: str, setup: Setup):
        from transformers import BertForMaskedLM

        self.model = BertForMaskedLM.from_pretrained(folder, attn_implementation=attention).train()
        self.train = setup.settings.train
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.train.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        config = self.train.optimiser
        betas = (getattr(config, "beta1"), getattr(config, "beta2"))  # noqa: B009 (those of AdamW)
        self.optimiser = torch.optim.AdamW(groups, betas=betas, eps=getattr(config, "epsilon"), fused=True)  # noqa: B009

    def step(self, batch: Dense, share: float) -> float:
        """One step at this share of the run."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.train.learning_rate * self.train.schedule.factor(Moment(share, self.train.warmup))
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.model(input_ids=batch[0], labels=batch[1]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.max_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss.item()


def faster(folder: Path, setup: Setup, batches: list[Dense]) -> str:
    """The attention that trains faster here."""
    times: dict[str, list[float]] = {}
    tried = {name: Peer(folder, name, setup) for name in ("sdpa", "eager")}
    for batch in batches[:8]:
        for name, peer in tried.items():
            started = time.perf_counter()
            peer.step(batch, 0.01)
            times.setdefault(name, []).append(time.perf_counter() - started)
    return min(times, key=lambda name: statistics.median(times[name][2:]))


def transformers(given: argparse.Namespace) -> dict[str, object]:
    """The same run by transformers."""
    setup = Setup.make(given)
    batches, dev = batches_of(setup, given.steps), dev_of(setup.validation())
    attention = faster(given.folder / "fresh", setup, batches)
    peer = Peer(given.folder / "fresh", attention, setup)
    curve: Curve = []
    seconds, tokens, losses = 0.0, 0, []
    for number, batch in enumerate(batches, 1):
        started = time.perf_counter()
        losses.append(peer.step(batch, number / (given.steps + 1)))
        seconds += time.perf_counter() - started
        tokens += batch[0].numel()
        if number / given.steps * given.looks >= len(curve) + 1 - 1e-9:
            curve.append([tokens, seconds, loss_of(peer.model, dev), statistics.mean(losses)])
            losses = []
    return {"curve": curve, "attention": attention}


def fresh(given: argparse.Namespace) -> dict[str, object]:
    """Make what both begin with; their losses before training are the same."""
    from transformers import BertForMaskedLM

    setup = Setup.make(given)
    save(setup.model, given.folder / "fresh")
    validation = setup.validation()
    trainee = Trainee(setup.model, setup.objective)
    theirs = BertForMaskedLM.from_pretrained(given.folder / "fresh")
    start = {"ours": validation.losses(trainee).total, "transformers": loss_of(theirs, dev_of(validation))}
    assert abs(start["ours"] - start["transformers"]) < 1e-5, start
    guess = constant_guess(setup, dev_of(validation))
    trunk = setup.model.config.trunk
    sizes = {"layers": trunk.num_layers, "width": trunk.d_model, "vocabulary": trunk.vocab_size}  # a checkpoint's own
    return {"start": start, "constant": guess, "parameters": sum(p.numel() for p in setup.model.parameters()), **sizes}


def constant_guess(setup: Setup, dev: list[Dense]) -> float:
    """Loss of one guess for all places: the frequencies of the training text."""
    tokens = setup.ready.train
    counts = np.bincount(tokens.take(0, tokens.num_tokens), minlength=setup.ready.vocabulary.size) + 1.0
    labels = torch.cat([labels[labels != -100] for _, labels in dev]).numpy()
    return float(-np.log(counts / counts.sum())[labels].mean())


def run(given: argparse.Namespace) -> None:
    """All seeds, the sides of each alternately."""
    options = [f"--{name}={getattr(given, name)}" for name in (*SIZES, "threads")]
    options += [f"--set={one}" for one in given.set]
    for seed in range(given.first, given.first + given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(given.data / given.corpus, Path(folder))
            seen: dict[str, list] = {}
            here = [*options, f"--seed={seed}", f"--folder={folder}"]
            sides = ["ours", "transformers"] if seed % 2 else ["transformers", "ours"]
            alternating.one_round(__file__, ["fresh", *sides], here, seen)
            seconds = seen["transformers"][0]["curve"][-1][1]
            for side in ("ours", "transformers"):
                seen[f"{side}_tokens"] = seen.pop(side)
            alternating.one_round(__file__, ["ours"], [*here, f"--minutes={seconds / 60}"], seen)
        equal, peer, long = (seen[side][0] for side in ("ours_tokens", "transformers_tokens", "ours"))
        ends = {"tokens": equal["curve"][-1][2], "transformers": peer["curve"][-1][2], "minutes": long["curve"][-1][2]}
        result = {
            "benchmark": "pretrain_quality",
            "seed": seed,
            "threads": given.threads,
            **{name: getattr(given, name) for name in SIZES},
            "set": given.set,
            **seen["fresh"][0],
            "precision": equal["precision"],
            "attention": peer["attention"],
            "at_equal_tokens": ends["tokens"] - ends["transformers"],
            "at_equal_minutes": ends["minutes"] - ends["transformers"],
            "curves": {"ours": equal["curve"], "transformers": peer["curve"], "ours_minutes": long["curve"]},
            **peers.environment(),
        }
        alternating.publish(result, given.out)


def write_corpus(source: Path, folder: Path) -> None:
    """Train and dev text where both sides read it, and a recipe that sets nothing."""
    (folder / "recipe.toml").write_text("", encoding="utf-8")
    (folder / "tokenizer").mkdir()
    (folder / "corpus").mkdir()
    (folder / "corpus" / "train.txt").write_bytes(gzip.decompress((source / "train.txt.gz").read_bytes()))
    (folder / "corpus" / "dev.txt").write_bytes((source / "dev.txt").read_bytes())


def table(rows: list[dict]) -> str:
    """Markdown: a line for each seed."""
    lines = [
        "| seed | frequencies | transformers | ours, equal tokens | difference | ours, equal minutes | difference |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        ends = {side: curve[-1][2] for side, curve in row["curves"].items()}
        cells = [row["constant"], ends["transformers"], ends["ours"], row["at_equal_tokens"]]
        cells += [ends["ours_minutes"], row["at_equal_minutes"]]
        lines.append(f"| {row['seed']} | " + " | ".join(f"{value:.3f}" for value in cells) + " |")
    speeds = [row["curves"]["transformers"][-1][1] / row["curves"]["ours"][-1][1] for row in rows]
    lines += [
        "",
        f"Equal tokens took transformers {statistics.median(speeds):.2f} times as long (median of the seeds).",
    ]
    return "\n".join(lines)


def plot(rows: list[dict], path: Path) -> None:
    """Dev loss over tokens and over minutes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = {"transformers": ("C1", "transformers"), "ours": ("C0", "tunesmith")}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for row in rows:
        for side, (colour, _) in shown.items():
            points = np.array(row["curves"][side])
            left.plot(points[:, 0] / 1e6, points[:, 2], color=colour, alpha=0.8, ls="--" if side == "ours" else "-")
        for side, colour in (("transformers", "C1"), ("ours_minutes", "C0")):
            points = np.array(row["curves"][side])
            right.plot(points[:, 1] / 60, points[:, 2], color=colour, alpha=0.8)
    for axes in (left, right):
        axes.axhline(statistics.mean(row["constant"] for row in rows), color="grey", lw=0.8, ls=":")
    for side, (colour, name) in shown.items():
        left.plot([], [], color=colour, label=name, ls="--" if side == "ours" else "-")
    left.plot([], [], color="grey", lw=0.8, ls=":", label="frequencies of words")
    left.set(xlabel="million tokens", ylabel="dev loss, nats per masked token", title="equal tokens")
    right.set(xlabel="minutes of training", title="equal minutes")
    left.legend(frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


SIZES = {
    "layers": 4,
    "width": 256,
    "vocabulary": 4096,
    "tokens": 64,
    "batch": 32,
    "dev": 512,
    "steps": 600,
    "looks": 20,
    "rate": 1e-3,
    "masked": 0.15,
}
SIDES = {"ours": ours, "transformers": transformers, "fresh": fresh}


def main() -> None:
    """Measure, print or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder")
    parser.add_argument("--corpus", default="corpus_en_novels", help="folder in it")
    for name, value in SIZES.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a further setting, as TOML")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--table", action="store_true")
    for name, kind in (("side", str), ("folder", Path), ("minutes", float), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.side:
        print(json.dumps(SIDES[given.side](given)))
    elif given.plot or given.table:
        results = given.out or Path(__file__).parent / "results" / "pretrain_quality.jsonl"
        rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
        if given.plot:
            plot(rows, given.plot)
        if given.table:
            print(table(rows))
    else:
        run(given)


if __name__ == "__main__":
    main()

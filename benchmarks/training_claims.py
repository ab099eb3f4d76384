"""Four claims of the lectures about training, derived again with the recipes at small scale.

    python benchmarks/training_claims.py warmup --plot docs/images/claim_warmup.png
    python benchmarks/training_claims.py sgd_and_batch --plot docs/images/claim_sgd_and_batch.png
    python benchmarks/training_claims.py masking --plot docs/images/claim_masking.png
    python benchmarks/training_claims.py gated --plot docs/images/claim_gated.png

Each arm of a claim is a recipe with some settings, pretrained from scratch on Wikipedia (`corpus_enwiki`) with the same
budget of tokens, once for each seed; a seed gives the first weights, the order of the data and the masks. What is
compared is the loss on the dev split at the end. Each run is a line of ``--out`` as soon as it is done; lines that are
there with the same settings are not measured again, so that a command that was stopped goes on.

The rule of all verdicts: d is the mean loss of the side that the claim says is worse, less that of the other side; s is
their pooled standard deviation over the seeds. The claim *holds* if d > 2 s, the *opposite* if d < -2 s, and else its
effect is *absent here*. Where a side has several arms (learning rates, say), the one with the lowest mean stands for
it. A run that fails (its loss exploded or is no number) counts as infinitely bad.
"""

import argparse
import gzip
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import alternating
import peers
import tunesmith
from tunesmith.nn.feedforward import equal_width
from tunesmith.text.corpus import CorpusSettings, open_corpus
from tunesmith.text.train_tokenizer import TokenizerSettings, train_tokenizer
from tunesmith.train.step import TrainingError

RESULTS = Path(__file__).parent / "results" / "training_claims.jsonl"
DECISIVE = 2.0
"""Pooled standard deviations that a difference must exceed."""
HIGHEST = 1.1
"""Top of the plots, in losses of the best constant guess."""

Settings = Mapping[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One sentence that can hold or not.

    Attributes:
        says: The sentence.
        better: Arms of the side that should end lower; the best of them stands for it.
        worse: Arms of the other side.
    """

    says: str
    better: tuple[str, ...]
    worse: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """An experiment: arms that differ in some settings, and what is said of them.

    Attributes:
        title: What is claimed.
        recipe: The recipe of all arms.
        vocabulary: Its tokenizer, trained on the text that is trained on.
        settings: What all arms have in common.
        arms: Name and own settings of each.
        comparisons: What is claimed, in sentences.
        characters: Characters of the text that is trained on.
    """

    title: str
    recipe: str
    vocabulary: TokenizerSettings
    settings: Settings
    arms: Mapping[str, Settings]
    comparisons: tuple[Comparison, ...]
    characters: int = 3_000_000


BYTE_LEVEL = TokenizerSettings(kind="bpe", style="gpt2", vocab_size=512)
WITH_MASK = TokenizerSettings(kind="bpe", style="roberta", vocab_size=512)

SMALL: Settings = {  # what all four have in common: the recipe's three minutes become a budget of tokens
    "data.max_tokens": 64,
    "data.dev_sequences": 200,
    "train.minutes": None,
    "train.evaluations": 8,
    "train.checkpoint_seconds": 600.0,
}
DEEP: Settings = {"model.num_layers": 8, "model.d_model": 64, "model.num_heads": 2, "model.d_ff": 256}
WIDE: Settings = {"model.num_layers": 4, "model.d_model": 96, "model.num_heads": 3, "model.d_ff": 384}
DEEP_STD, WIDE_STD = 0.07, 0.06  # 0.02 at a width of 768, by one over the root of the width


def warmup() -> Claim:
    """Post-norm with and without warm-up at four learning rates, and pre-norm as control."""
    rates = {"post": (5e-4, 1e-3, 2e-3, 4e-3), "pre": (4e-3, 8e-3)}
    arms: dict[str, Settings] = {}
    said: list[Comparison] = []
    for order, own in rates.items():
        with_it = tuple(f"{order}-norm, {rate:g}, warm-up" for rate in own)
        without = tuple(f"{order}-norm, {rate:g}, none" for rate in own)
        for names, share in ((with_it, 0.1), (without, 0.0)):
            for name, rate in zip(names, own, strict=True):
                arms[name] = {"model.order": order, "train.learning_rate": rate, "train.warmup": share}
        for rate, a, b in zip(own, with_it, without, strict=True):
            said.append(Comparison(f"{order}-norm at {rate:g} ends worse without warm-up", (a,), (b,)))
        said.append(Comparison(f"{order}-norm at its best rate ends worse without warm-up", with_it, without))
    return Claim(
        title="Without warm-up post-norm fails",
        recipe="gpt2",
        vocabulary=BYTE_LEVEL,
        settings={
            **SMALL,
            **DEEP,
            "model.initial_std": DEEP_STD,
            "train.batch_size": 16,
            "train.tokens": 200_000,
        },
        arms=arms,
        comparisons=tuple(said),
    )


ADAMW_RATES = {1: (1e-3,), 4: (1e-3, 3e-3), 16: (1e-3, 3e-3, 1e-2), 64: (3e-3, 1e-2)}
SGD_RATES = (0.03, 0.1, 0.3, 1.0)


def sgd_and_batch() -> Claim:
    """SGD against AdamW, and AdamW with four sizes of a batch, each at its own learning rates."""
    arms: dict[str, Settings] = {}
    adamw: dict[int, tuple[str, ...]] = {}
    for size, rates in ADAMW_RATES.items():
        adamw[size] = tuple(f"AdamW, batch {size}, {rate:g}" for rate in rates)
        for name, rate in zip(adamw[size], rates, strict=True):
            arms[name] = {"train.batch_size": size, "train.learning_rate": rate}
    sgd = tuple(f"SGD, batch 16, {rate:g}" for rate in SGD_RATES)
    for name, rate in zip(sgd, SGD_RATES, strict=True):
        arms[name] = {"train.optimiser": "sgd", "train.batch_size": 16, "train.learning_rate": rate}
    smaller = [
        Comparison(f"batch {a} ends worse than batch {b}, each at its best rate", adamw[b], adamw[a])
        for a, b in ((1, 4), (4, 16), (16, 64))
    ]
    return Claim(
        title="SGD fails, and a small batch ends worse at equal tokens",
        recipe="gpt2",
        vocabulary=BYTE_LEVEL,
        settings={
            **SMALL,
            **WIDE,
            "model.initial_std": WIDE_STD,
            "train.tokens": 250_000,
        },
        arms=arms,
        comparisons=(
            Comparison("SGD at its best rate ends worse than AdamW at its best", adamw[16], sgd),
            *smaller,
            Comparison("batch 4 ends worse than batch 64, both at 0.003", adamw[64][:1], adamw[4][1:]),
        ),
    )


def masking() -> Claim:
    """Masks that are new in every epoch against 10 frozen copies, BERT's way, and against one."""
    return Claim(
        title="Dynamic masking is better than static",
        recipe="roberta",
        vocabulary=WITH_MASK,
        settings={
            **SMALL,
            **WIDE,
            "model.initial_std": WIDE_STD,
            "model.order": "pre",  # with RoPE it leaves the frequencies of words early, post-norm not in this budget
            "model.position": "rope",
            "train.learning_rate": 3e-3,
            "train.batch_size": 8,
            "train.tokens": 500_000,
        },
        arms={
            "dynamic": {"objective.masking": "dynamic"},
            "static, 10 copies": {"objective.masking": "static", "objective.copies": 10},
            "static, 1 copy": {"objective.masking": "static", "objective.copies": 1},
        },
        comparisons=(
            Comparison("10 frozen copies end worse than new masks", ("dynamic",), ("static, 10 copies",)),
            Comparison("1 frozen copy ends worse than new masks", ("dynamic",), ("static, 1 copy",)),
        ),
        characters=36_000,
    )


def gated() -> Claim:
    """The feed-forward layers of the GLU paper, at as many weights."""
    plain, gates = ("relu", "gelu"), ("glu", "bilinear", "reglu", "geglu", "swiglu")
    width = WIDE["model.d_ff"]
    arms: dict[str, Settings] = {kind: {"model.feedforward": kind} for kind in plain}
    arms |= {kind: {"model.feedforward": kind, "model.d_ff": equal_width(width)} for kind in gates}
    longer = tuple(f"{kind}, longer" for kind in ("geglu", "relu"))
    arms |= {name: {**arms[name.partition(",")[0]], "train.tokens": 600_000} for name in longer}
    return Claim(
        title="Gated feed-forward layers are better at equal parameters",
        recipe="llama",
        vocabulary=BYTE_LEVEL,
        settings={
            **SMALL,
            **WIDE,
            "model.initial_std": WIDE_STD,
            "model.norm": "layer_norm",  # so that transformers can hold none of the arms, and all get the same head
            "train.learning_rate": 3e-3,
            "train.batch_size": 16,
            "train.tokens": 250_000,
        },
        arms=arms,
        comparisons=tuple(Comparison(f"{kind} ends lower than the best plain one", (kind,), plain) for kind in gates)
        + (
            Comparison("the best gated one ends lower than the best plain one", gates, plain),
            Comparison("geglu ends lower than relu in longer runs", longer[:1], longer[1:]),
        ),
    )


CLAIMS = {made.__name__: made for made in (warmup, sgd_and_batch, masking, gated)}


# Runs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One arm with one seed: all that decides its result.

    Attributes:
        claim: Name of the claim.
        arm: Name of the arm.
        seed: Seed.
        recipe: Recipe.
        characters: Characters of the training text.
        vocabulary: How its tokenizer is trained.
        settings: Settings of the recipe.
    """

    claim: str
    arm: str
    seed: int
    recipe: str
    characters: int
    vocabulary: Settings
    settings: Settings

    def described(self) -> Row:
        """As it stands in the results."""
        return json.loads(json.dumps({name: getattr(self, name) for name in type(self).__dataclass_fields__}))


def runs_of(name: str, claim: Claim, *, seeds: int, changes: Settings) -> list[Run]:
    """All runs of a claim, a seed after the other."""
    return [
        Run(
            claim=name,
            arm=arm,
            seed=seed,
            recipe=claim.recipe,
            characters=claim.characters,
            vocabulary=claim.vocabulary.model_dump(mode="json"),
            settings={**claim.settings, **own, "train.seed": seed, "train.device": "cpu", **changes},
        )
        for seed in range(seeds)
        for arm, own in claim.arms.items()
    ]


def prepare(claim: Claim, *, data: Path, work: Path) -> None:
    """Write the beginning of the corpus and its tokenizer where the runs find them."""
    source = data / "corpus_enwiki"
    (work / "corpus").mkdir(parents=True)
    text = gzip.decompress((source / "train.txt.gz").read_bytes()).decode()[: claim.characters]
    (work / "corpus" / "train.txt").write_text(text[: text.rindex("\n\n")], encoding="utf-8")
    dev = (source / "dev.txt").read_text(encoding="utf-8")[:200_000]
    (work / "corpus" / "dev.txt").write_text(dev[: dev.rindex("\n\n")], encoding="utf-8")
    train = open_corpus(work / "corpus", CorpusSettings()).splits["train"]
    longest = claim.settings["data.max_tokens"]
    (work / "tokenizer").mkdir()
    train_tokenizer(train, claim.vocabulary, max_tokens=longest).tokenizer.save(work / "tokenizer")


def measure(run: Run, work: Path) -> Row:
    """Pretrain once, on one thread; a loss of None says that training failed."""
    torch.set_num_threads(1)
    began, computed = time.perf_counter(), time.process_time()
    found: Row = {"loss": None}
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = Path(folder) / "run"
        try:
            settings = {**run.settings, "tokenizer": str(work / "tokenizer")}
            tunesmith.pretrain(run.recipe, work / "corpus", out=out, settings=settings)
        except TrainingError as error:
            found["failed"] = str(error)
        else:
            metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
            curve = json.loads((out / "curve.json").read_text(encoding="utf-8"))
            keys = ("constant_loss", "steps", "tokens", "total_parameters", "precision")
            found |= {"loss": metrics["validation_loss"], **{key: metrics[key] for key in keys}}
            found["curve"] = [[point["tokens"], point["train_loss"], point["dev_loss"]] for point in curve]
    found["seconds"] = time.perf_counter() - began
    return found | {"cpu_seconds": time.process_time() - computed}


def measure_all(name: str, claim: Claim, arguments: argparse.Namespace) -> list[Row]:
    """Measure what the results lack; the rows of this claim, those that were there among them."""
    wanted = runs_of(name, claim, seeds=arguments.seeds, changes=json.loads(arguments.changes))
    known = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    asked = [run.described() for run in wanted]
    rows = [row for row in known if {key: row[key] for key in asked[0]} in asked]
    done = [{key: row[key] for key in asked[0]} for row in rows]
    missing = [run for run in wanted if run.described() not in done]
    if not missing:
        return rows
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(claim, data=arguments.data, work=work)
        os.environ |= {"TUNESMITH_CACHE": str(work / "cache"), "OMP_NUM_THREADS": "1"}  # for the processes to come
        with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
            running = {pool.submit(measure, run, work): run for run in missing}
            for future in as_completed(running):
                rows.append(running[future].described() | future.result() | peers.environment())
                alternating.publish(rows[-1], arguments.out)
    print(f"{len(missing)} runs in {(time.perf_counter() - began) / 60:.1f} min, {arguments.jobs} at once", flush=True)
    return rows


# Figures ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Losses of the seeds of an arm.

    Attributes:
        mean: Infinite where a seed failed.
        sd: Standard deviation of the seeds that did not fail; 0 if fewer than two.
    """

    mean: float
    sd: float


def losses(rows: Sequence[Row], arm: str) -> list[float]:
    """Of an arm, in the order of the seeds; infinite where training failed."""
    own = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])
    return [math.inf if row["loss"] is None else row["loss"] for row in own]


def spread(rows: Sequence[Row], arm: str) -> Spread:
    """Of an arm."""
    found = losses(rows, arm)
    finite = [loss for loss in found if math.isfinite(loss)]
    return Spread(statistics.fmean(found), statistics.stdev(finite) if len(finite) > 1 else 0.0)


def verdict(rows: Sequence[Row], said: Comparison) -> str:
    """The sentence, what was found, and by how much."""
    better, worse = (min(side, key=lambda arm: spread(rows, arm).mean) for side in (said.better, said.worse))
    a, b = spread(rows, better), spread(rows, worse)
    if min(sum(row["arm"] == arm for row in rows) for arm in (better, worse)) < 2:
        return f"- {said.says}: not judged, as one seed has no spread"
    difference, pooled = b.mean - a.mean, math.sqrt((a.sd**2 + b.sd**2) / 2)
    if math.isnan(difference):
        found = "absent here (both fail)"
    elif difference > DECISIVE * pooled:
        found = "holds"
    else:
        found = "the opposite" if difference < -DECISIVE * pooled else "absent here"
    pairs = zip(losses(rows, better), losses(rows, worse), strict=True)
    by_seed = " ".join(f"{y - x:+.3f}" for x, y in pairs)
    which = "" if len(said.better) == len(said.worse) == 1 else f" ({better} against {worse})"
    return f"- {said.says}{which}: **{found}** ({difference:+.3f}; 2 s = {DECISIVE * pooled:.3f}; by seed {by_seed})"


def report(claim: Claim, rows: Sequence[Row]) -> str:
    """Markdown: a line for each arm, then the verdicts."""
    head = ("arm", "parameters", "steps", "dev loss", "each seed", "no better than a constant", "CPU s a run")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for arm in claim.arms:
        own = [row for row in rows if row["arm"] == arm]
        ended = [row for row in own if row["loss"] is not None]
        if not own:
            continue
        found = spread(rows, arm)
        learnt = [row for row in ended if row["loss"] < row["constant_loss"]]
        cells = (
            arm,
            f"{ended[0]['total_parameters']:,}" if ended else "",
            f"{ended[0]['steps']:,}" if ended else "",
            f"{found.mean:.3f} ± {found.sd:.3f}" if math.isfinite(found.mean) else "failed",
            " ".join(f"{loss:.3f}" for loss in losses(rows, arm)),
            f"{len(own) - len(learnt)} of {len(own)}",
            f"{statistics.fmean(row['cpu_seconds'] for row in own):.0f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    constants = [row["constant_loss"] for row in rows if row["loss"] is not None]
    lines += ["", f"Best constant guess: {statistics.fmean(constants):.3f}." if constants else "", ""]
    measured = {row["arm"] for row in rows}
    lines += [verdict(rows, said) for said in claim.comparisons if measured >= {*said.better, *said.worse}]
    cpu = sum(row["cpu_seconds"] for row in rows) / 60
    return "\n".join([*lines, "", f"{len(rows)} runs, {cpu:.1f} min of one core in all: {cpu / 2:.1f} min on two."])


def plot(claim: Claim, rows: Sequence[Row], path: Path) -> None:
    """Dev loss over tokens, each seed and the mean; beside it the ends of all seeds."""
    figure, (curves, ends) = plt.subplots(1, 2, figsize=(11, 4.5), width_ratios=(3, 2), sharey=True)
    arms = [arm for arm in claim.arms if any(row["arm"] == arm for row in rows)]
    ended = [row for row in rows if row["loss"] is not None]
    constant = statistics.fmean(row["constant_loss"] for row in ended)
    ceiling = HIGHEST * constant
    for i, arm in enumerate(arms):
        colour = plt.get_cmap("tab20")(i)
        own = [row for row in ended if row["arm"] == arm]
        for row in own:
            beyond = row["loss"] > ceiling
            ends.scatter(i, min(row["loss"], ceiling), color=colour, s=18, marker="^" if beyond else "o", clip_on=False)
            curves.plot(
                [tokens / 1e6 for tokens, _, _ in row["curve"]],
                [loss for *_, loss in row["curve"]],
                color=colour,
                linewidth=0.6,
                alpha=0.6,
            )
        looks = list(zip(*(row["curve"] for row in own), strict=True))
        tokens = [statistics.fmean(seed[0] for seed in look) / 1e6 for look in looks]
        curves.plot(tokens, [statistics.fmean(seed[2] for seed in look) for look in looks], color=colour, label=arm)
    for axes in (curves, ends):
        axes.axhline(constant, color="grey", linewidth=0.8, linestyle=":")
    curves.set_ylim(top=min(ceiling, curves.get_ylim()[1]))
    curves.set(xlabel="million tokens", ylabel="dev loss, nats per target", title=claim.title)
    curves.legend(frameon=False, fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    ends.set_xticks(range(len(arms)), arms, rotation=60, ha="right", fontsize=7)
    ends.set_title("at the end, each seed (dotted: best constant guess; triangle: higher)", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    """Measure what is missing, print the table and the verdicts, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results, JSON Lines")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--changes", default="{}", help='settings over those of all arms, as {"train.tokens": 20000}')
    arguments = parser.parse_args()
    claim = CLAIMS[arguments.claim]()
    rows = measure_all(arguments.claim, claim, arguments)
    print(report(claim, rows))
    if arguments.plot is not None:
        plot(claim, rows, arguments.plot)


if __name__ == "__main__":
    main()

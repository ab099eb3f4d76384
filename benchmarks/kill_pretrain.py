"""Kill pretraining at random moments with SIGKILL, resume it, and compare every bit with undisturbed runs.

    python benchmarks/kill_pretrain.py --kills 50

`tunesmith pretrain` is a process of its own on made-up text, with three jobs: BERT's objective (WordPiece, tokenised by
the process itself), ELECTRA's (one further process tokenises) and T5's (Unigram, two further processes, packed rows).
Each is run once undisturbed; then again and again, killed at a moment drawn uniformly from the undisturbed duration
(the tokenizer's training, tokenising and saving included), every third time twice, and resumed to the end with the same
command. Each run has a cache of its own, so that the corpus is tokenised anew. One JSON line tells the counts; the exit
code is 1 if anything differs, a half-written file is left, or an unfinished run passes for a finished one.
"""

import json
import random
from pathlib import Path

import killing
from tunesmith.base.errors import CheckpointError
from tunesmith.recipes.load import load
from tunesmith.recipes.output import need_finished
from tunesmith.text.verified import VERIFIED

COMMON = """
[data]
max_tokens = 48
workers = {workers}
[train]
max_steps = 100
evaluations = 4
batch_size = 8
micro_batch_tokens = 192
checkpoint_seconds = 0.05
precision = "fp32"
[vocabulary]
vocab_size = {vocab_size}
{vocabulary}
[model]
d_model = 32
num_layers = 2
num_heads = 4
d_ff = 48
{model}
"""
PATTERNS = ("*.safetensors", "tokenizer*.json", "config.json", "run.toml")
WORDPIECE = 'kind = "wordpiece"\nstyle = "bert"'
JOBS = {
    "bert": (
        '[objective]\nname = "nsp"\n[input]\nname = "segment_pair"',
        {"workers": 0, "vocab_size": 600, "vocabulary": WORDPIECE, "model": 'preset = "bert_mini"'},
    ),
    "electra": (
        '[objective]\nname = "rtd"\nwidth = 0.5\n[input]\nname = "full_sentences"',
        {
            "workers": 1,
            "vocab_size": 600,
            "vocabulary": WORDPIECE,
            "model": 'preset = "electra_small"\nd_embedding = 16',
        },
    ),
    "t5": (
        '[objective]\nname = "span_corruption"\n[input]\nname = "packed"',
        {
            "workers": 2,
            "vocab_size": 600,
            "vocabulary": 'kind = "unigram"\nstyle = "t5"',
            "model": 'preset = "t5_mini"',
        },
    ),
}


def make_inputs(folder: Path) -> Path:
    """A corpus of made-up words in made-up sentences, and a recipe for each job."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(2000)]
    shares = [1 / rank for rank in range(1, len(words) + 1)]
    documents = [
        "\n".join(" ".join(draw.choices(words, shares, k=draw.randint(4, 20))) + "." for _ in range(8))
        for _ in range(1500)
    ]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    for job, (head, fields) in JOBS.items():
        (folder / f"{job}.toml").write_text(head + COMMON.format(**fields), encoding="utf-8")
    return folder / "corpus.txt"


class PretrainWatch(killing.Watch):
    """Watches pretraining runs, each with a cache of its own."""

    def __init__(self, root: Path, *, seed: int):
        super().__init__(root, seed=seed)
        self.corpus = make_inputs(root)

    def command(self, job: str, out: Path) -> list[str | Path]:
        """The command of a job."""
        return ["pretrain", self.root / f"{job}.toml", "--corpus", self.corpus, "--out", out, "--resume"]

    def cache(self, out: Path) -> Path:
        """The cache of a run."""
        return self.root / f"cache of {out.name}"

    def places(self, out: Path) -> list[Path]:
        """The run and its cache."""
        return [out, self.cache(out)]

    def state(self, out: Path) -> str:
        """How far a run had come."""
        if (out / "metrics.json").is_file():
            return "after the end"
        if (out / "checkpoint" / "last.safetensors").is_file():
            saved = (out / "model.safetensors").is_file() or (out / "config.json").is_file()
            return "while saving" if saved else "with a checkpoint"
        if len(list(self.cache(out).rglob("index.json"))) == 2:
            return "before the first checkpoint"
        if (out / "tokenizer.json").is_file():
            return "while tokenising"
        return "before there was a tokenizer" if (out / "run.toml").is_file() else "before there was a record"

    def check(self, out: Path, whole: Path, *, at_end: bool) -> None:
        """Compare a run that says it is finished with the undisturbed one; at the end it must."""
        if (out / "metrics.json").is_file():
            self.faults += [f"{out.name}: {fault}" for fault in differences(out, whole)]
            ours, theirs = kept_tokens(self.cache(out)), kept_tokens(self.cache(whole))
            differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
            if differing:
                self.faults.append(f"{out.name}: the shards differ: {', '.join(differing)}")
        elif at_end:
            self.faults.append(f"{out.name}: was not finished")
        elif out.is_dir() and is_finished(out):
            self.faults.append(f"{out.name}: is unfinished, but passes for finished")
        if at_end:
            self.check_tidy(out)
            load(out)


def differences(run: Path, whole: Path) -> list[str]:
    """What differs between a run and the undisturbed one."""
    found = killing.differing_files(run, whole, lambda folder: [path for p in PATTERNS for path in folder.rglob(p)])
    found += ["the curve differs"] * (curve(run) != curve(whole))
    found += ["the metrics differ"] * (metrics(run) != metrics(whole))
    return found


def curve(run: Path) -> list:
    """The curve, but for its times."""
    points = json.loads((run / "curve.json").read_text(encoding="utf-8"))
    return [{key: value for key, value in point.items() if key != "seconds"} for point in points]


def metrics(run: Path) -> dict:
    """The metrics, but for times and memory."""
    tree = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return {key: value for key, value in tree.items() if "second" not in key and "memory" not in key}


def kept_tokens(cache: Path) -> dict[str, bytes]:
    """All files of the tokens, by name, but for the record that says when each shard was last written."""
    files = (path for path in (cache / "tokens").rglob("*") if path.is_file() and path.name != VERIFIED)
    return {str(path.relative_to(cache)): path.read_bytes() for path in files}


def is_finished(run: Path) -> bool:
    """Whether a folder is taken for a finished run."""
    try:
        need_finished(run)
    except CheckpointError:
        return False
    return True


if __name__ == "__main__":
    killing.main("kill_pretrain", __doc__, PretrainWatch, list(JOBS), kills=50)

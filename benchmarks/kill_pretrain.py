"""Kill pretraining at random moments with SIGKILL, resume it, and compare every bit with undisturbed runs.

    python benchmarks/kill_pretrain.py --kills 50

`tunesmith pretrain` is a process of its own on made-up text, with three jobs: BERT's objective (WordPiece, tokenised by
the process itself), ELECTRA's (one further process tokenises) and T5's (Unigram, two further processes, packed rows).
Each is run once undisturbed; then again and again, killed at a moment drawn uniformly from the undisturbed duration
(the tokenizer's training, tokenising and saving included), every third time twice, and resumed to the end with the same
command. Each run has a cache of its own, so that the corpus is tokenised anew. One JSON line tells the counts; the exit
code is 1 if anything differs, a half-written file is left, or an unfinished run passes for a finished one.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import peers
from tunesmith.base.errors import CheckpointError
from tunesmith.recipes.load import load
from tunesmith.recipes.output import need_finished

COMMON = """
[data]
max_tokens = 48
workers = {workers}
[train]
max_steps = 40
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


class Watch:
    """Runs commands, kills them, and counts what is wrong.

    Args:
        root: Folder to work in.
        seed: Seed of the moments.
    """

    def __init__(self, root: Path, *, seed: int):
        self.root = root
        self.corpus = make_inputs(root)
        self.draw = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def cache(self, out: Path) -> Path:
        """The cache of a run."""
        return self.root / f"cache of {out.name}"

    def start(self, job: str, out: Path) -> subprocess.Popen:
        """The job's command as a process of its own."""
        command = [sys.executable, "-m", "tunesmith", "pretrain", self.root / f"{job}.toml", "--corpus", self.corpus]
        environment = {**os.environ, "TUNESMITH_CACHE": str(self.cache(out))}
        with (self.root / "log.txt").open("ab") as log:
            return subprocess.Popen([*command, "--out", out, "--resume"], stdout=log, stderr=log, env=environment)

    def finish(self, job: str, out: Path) -> None:
        """Run the command to its end."""
        if self.start(job, out).wait() != 0:
            tail = (self.root / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            self.faults.append(f"{out.name}: the command failed: {' | '.join(tail)}")

    def kill(self, job: str, out: Path, *, after: float) -> None:
        """Start the command, or go on with it, and kill it after this many seconds."""
        process = self.start(job, out)
        try:
            process.wait(timeout=after)
            self.counts["ended before the kill"] += 1
            return
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.counts["kills"] += 1
        self.counts[f"killed {self.state(out)}"] += 1
        self.counts["killed while writing a file"] += any([*out.rglob(".*.part"), *self.cache(out).rglob(".*.part")])

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
            if kept_tokens(self.cache(out)) != kept_tokens(self.cache(whole)):
                self.faults.append(f"{out.name}: the shards differ")
        elif at_end:
            self.faults.append(f"{out.name}: was not finished")
        elif out.is_dir() and is_finished(out):
            self.faults.append(f"{out.name}: is unfinished, but passes for finished")
        if at_end:
            left = [path for path in out.rglob("*") if path.name.startswith(".") or path.name == "checkpoint"]
            left += [path for path in self.cache(out).rglob("*") if path.name.endswith(".part")]
            self.faults += [f"{path.relative_to(self.root)}: is left over" for path in left]
            load(out)


def differences(run: Path, whole: Path) -> list[str]:
    """What differs between a run and the undisturbed one."""
    found = []
    for pattern in ("*.safetensors", "tokenizer*.json", "config.json", "run.toml"):
        names = {path.relative_to(folder) for folder in (run, whole) for path in folder.rglob(pattern)}
        for name in sorted(names):
            if not (run / name).is_file() or not (whole / name).is_file():
                found.append(f"{name} is in one of the two only")
            elif (run / name).read_bytes() != (whole / name).read_bytes():
                found.append(f"{name} differs")
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
    """All files of the cache, by name."""
    return {str(path.relative_to(cache)): path.read_bytes() for path in cache.rglob("*") if path.is_file()}


def is_finished(run: Path) -> bool:
    """Whether a folder is taken for a finished run."""
    try:
        need_finished(run)
    except CheckpointError:
        return False
    return True


def main() -> None:
    """Run undisturbed, then kill and resume until there are enough kills; print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--out", type=Path, help="JSON Lines file to append the result to")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill-pretrain-") as folder:
        watch = Watch(Path(folder), seed=arguments.seed)
        seconds = {}
        for job in JOBS:
            before = time.monotonic()
            watch.finish(job, watch.root / f"{job} undisturbed")
            seconds[job] = time.monotonic() - before
        runs = 0
        while watch.counts["kills"] < arguments.kills and runs < 3 * arguments.kills and not watch.faults:
            job = list(JOBS)[runs % len(JOBS)]
            out, whole = watch.root / f"{job} {runs}", watch.root / f"{job} undisturbed"
            for _ in range(2 if runs % 3 == runs // 3 % 3 else 1):
                watch.kill(job, out, after=watch.draw.uniform(0, seconds[job]))
                watch.check(out, whole, at_end=False)
            watch.finish(job, out)
            if not watch.faults:
                watch.check(out, whole, at_end=True)
            runs += 1
            print(f"{out.name}: {dict(watch.counts)}, {len(watch.faults)} faults", file=sys.stderr, flush=True)
        result = {
            "benchmark": "kill_pretrain",
            "runs": runs,
            **watch.counts,
            "faults": watch.faults,
            "undisturbed_seconds": {job: round(value, 1) for job, value in seconds.items()},
            "seconds": round(time.monotonic() - started),
            **peers.environment(),
        }
    line = json.dumps(result)
    print(line)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    sys.exit(1 if watch.faults else 0)


if __name__ == "__main__":
    main()

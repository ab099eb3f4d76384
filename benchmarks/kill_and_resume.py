"""Kill runs at random moments with SIGKILL, resume them, and compare every bit with undisturbed runs.

    python benchmarks/kill_and_resume.py --kills 30

Three commands are run as processes: `tunesmith tune` with lora and with full, and `tunesmith compare` with two methods
and two seeds, on a tiny random BERT and the docstrings of this Python. Each is run once undisturbed; then again and
again, killed at a moment drawn uniformly from the undisturbed duration (start-up and saving included), every third time
twice, and resumed to the end with the same command. One JSON line tells the counts; the exit code is 1 if anything
differs, a half-written file is left, or an unfinished run passes for a finished one.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import transformers

import peers
import tunesmith as ts
from tunesmith.base.errors import CheckpointError
from tunesmith.text.docstrings import standard_library_docstrings

SETTINGS = ("train.max_steps=150", "train.evaluations=4", "train.patience=9", "train.batch_size=16")
SMALL = ("train.micro_batch_tokens=256", "train.checkpoint_seconds=0.05", "data.max_tokens=48")
JOBS = {
    "tune lora": ("tune", "--method", "lora", "method.dropout=0.1"),
    "tune full": ("tune", "--method", "full"),
    "compare": ("compare", "--methods", "bitfit,lora", "--seeds", "2", "method.lora.dropout=0.1"),
}
TIMES = ("second", "memory", "bytes")  # columns of the leaderboard that no two runs share


def make_inputs(folder: Path) -> tuple[Path, Path]:
    """A tiny random BERT with a vocabulary of the data's words, and a file of labelled docstrings."""
    rows = standard_library_docstrings(limit=400)
    data = folder / "docstrings.csv"
    with data.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(rows.texts, rows.labels, strict=True))
    words = Counter(word for text in rows.texts for word in text.lower().split() if word.isalpha())
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:'()-_"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    vocabulary += [word for word, _ in words.most_common(1000) if word not in vocabulary]
    model = folder / "model"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(model)
    (model / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return model, data


class Watch:
    """Runs commands, kills them, and counts what is wrong.

    Args:
        root: Folder to work in.
        seed: Seed of the moments.
    """

    def __init__(self, root: Path, *, seed: int):
        self.root = root
        self.model, self.data = make_inputs(root)
        self.draw = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def start(self, job: str, out: Path) -> subprocess.Popen:
        """The job's command as a process of its own."""
        verb, *options = JOBS[job]
        command = [sys.executable, "-m", "tunesmith", verb, self.model, self.data, "--out", out, "--resume"]
        environment = {**os.environ, "TUNESMITH_CACHE": str(self.root / "cache")}
        with (self.root / "log.txt").open("ab") as log:
            return subprocess.Popen([*command, *options, *SETTINGS, *SMALL], stdout=log, stderr=log, env=environment)

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
        runs = sorted(path.parent for path in out.rglob("run.toml"))
        state = "before there was a record"
        if any((run / "checkpoint" / "last.safetensors").is_file() for run in runs):
            state = "with a checkpoint"
        elif (out / "metrics.json").is_file():
            state = "after the end"
        elif runs:
            state = "without a checkpoint"
        self.counts[f"killed {state}"] += 1
        self.counts["killed while writing a file"] += any(out.rglob(".*.part"))

    def check(self, job: str, out: Path, whole: Path, *, at_end: bool) -> None:
        """Compare every run that says it is finished with the undisturbed one; at the end all must."""
        for record in sorted(whole.rglob("run.toml")):
            place = record.parent.relative_to(whole)
            run = out / place
            if (run / "metrics.json").is_file():
                self.faults += [f"{out.name}/{place}: {fault}" for fault in differences(run, record.parent)]
            elif at_end:
                self.faults.append(f"{out.name}/{place}: was not finished")
            elif run.is_dir() and opens(run):
                self.faults.append(f"{out.name}/{place}: is unfinished, but opens")
        if at_end:
            left = [path for path in out.rglob("*") if path.name.startswith(".") or path.name == "checkpoint"]
            self.faults += [f"{path.relative_to(self.root)}: is left over" for path in left]


def differences(run: Path, whole: Path) -> list[str]:
    """What differs between a folder of a run or comparison and the undisturbed one."""
    found = []
    for pattern in ("*.safetensors", "dev_predictions.jsonl", "curve.json", "tunesmith.json", "run.toml"):
        names = {path.name for folder in (run, whole) for path in folder.glob(pattern)}
        for name in sorted(names):
            if not (run / name).is_file() or not (whole / name).is_file():
                found.append(f"{name} is in one of the two only")
            elif (run / name).read_bytes() != (whole / name).read_bytes():
                found.append(f"{name} differs")
    if scores(run) != scores(whole):
        found.append("scores differ")
    return found


def scores(run: Path) -> object:
    """Scores of metrics.json, and the leaderboard but for times."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    kept = {name: metrics.get(name) for name in ("dev", "test", "best", "metric", "best_step", "steps")}
    if not (run / "leaderboard.csv").is_file():
        return kept
    with (run / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return kept, [{k: v for k, v in row.items() if not any(word in k for word in TIMES)} for row in rows]


def opens(run: Path) -> bool:
    """Whether a folder is taken for a finished run."""
    try:
        ts.load_run(run)
    except CheckpointError:
        return False
    return True


def main() -> None:
    """Run undisturbed, then kill and resume until there are enough kills; print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--out", type=Path, help="JSON Lines file to append the result to")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as folder:
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
                watch.check(job, out, whole, at_end=False)
            watch.finish(job, out)
            watch.check(job, out, whole, at_end=True)
            runs += 1
            print(f"{out.name}: {dict(watch.counts)}, {len(watch.faults)} faults", file=sys.stderr, flush=True)
        result = {
            "benchmark": "kill_and_resume",
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

"""Kill runs at random moments with SIGKILL, resume them, and compare every bit with undisturbed runs.

    python benchmarks/kill_and_resume.py --kills 30

Three commands are run as processes: `tunesmith tune` with lora and with full, and `tunesmith compare` with two methods
and two seeds, on a tiny random BERT and the docstrings of this Python. Each is run once undisturbed; then again and
again, killed at a moment drawn uniformly from the undisturbed duration (start-up and saving included), every third time
twice, and resumed to the end with the same command. One JSON line tells the counts; the exit code is 1 if anything
differs, a half-written file is left, or an unfinished run passes for a finished one.
"""

import csv
import json
from collections import Counter
from pathlib import Path

import torch
import transformers

import killing
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
PATTERNS = ("*.safetensors", "dev_predictions.jsonl", "curve.json", "tunesmith.json", "run.toml")
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


class TuneWatch(killing.Watch):
    """Watches tuning runs and comparisons."""

    def __init__(self, root: Path, *, seed: int):
        super().__init__(root, seed=seed)
        self.model, self.data = make_inputs(root)

    def command(self, job: str, out: Path) -> list[str | Path]:
        """The command of a job."""
        verb, *options = JOBS[job]
        return [verb, self.model, self.data, "--out", out, "--resume", *options, *SETTINGS, *SMALL]

    def state(self, out: Path) -> str:
        """How far a run had come."""
        runs = sorted(path.parent for path in out.rglob("run.toml"))
        if any((run / "checkpoint" / "last.safetensors").is_file() for run in runs):
            return "with a checkpoint"
        if (out / "metrics.json").is_file():
            return "after the end"
        return "without a checkpoint" if runs else "before there was a record"

    def check(self, out: Path, whole: Path, *, at_end: bool) -> None:
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
            self.check_tidy(out)


def differences(run: Path, whole: Path) -> list[str]:
    """What differs between a folder of a run or comparison and the undisturbed one."""
    found = killing.differing_files(run, whole, lambda folder: [path for p in PATTERNS for path in folder.glob(p)])
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


if __name__ == "__main__":
    killing.main("kill_and_resume", __doc__, TuneWatch, list(JOBS), kills=30)

"""Pretraining runs of seconds; also the program of a process that is killed or is one of several.

``python tiny_pretraining.py JOB``, where the job is JSON: case, corpus, out, settings, resume, action, step, places.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path

from tunesmith.recipes import pretrain as module
from tunesmith.recipes.feed import Feed
from tunesmith.train.loop import Interrupted

WORDS = "the film a was and story of it plot song fine bright warm lovely kind clever dull cold slow noisy weak".split()
STEPS = 6
BASE = {
    "model": {"preset": "bert_mini", "d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 48},
    "objective": {"name": "mlm"},
    "input": {"name": "doc_sentences"},
    "data": {"max_tokens": 24, "dev_share": 0.1},
    "vocabulary": {"vocab_size": 90},
    "train": {
        "max_steps": STEPS,
        "batch_size": 8,
        "micro_batch_tokens": 60,
        "evaluations": 3,
        "precision": "fp32",
        "learning_rate": 0.01,
        "seed": 3,
        "checkpoint_seconds": 0.0,
    },
}
T5 = {"vocabulary.kind": "unigram", "vocabulary.style": "t5", "vocabulary.vocab_size": 200, "model.preset": "t5_mini"}
CASES = {  # the dropout of the presets is on, a step has several micro-batches, the data are passed more than once
    "mlm": {},
    "rtd": {"objective": {"name": "rtd", "width": 0.5}, "model.preset": "electra_small", "model.d_embedding": 16},
    "gdes": {"objective": {"name": "gdes"}, "model.preset": "deberta_v3_mini"},
    "span_corruption": {"objective": {"name": "span_corruption"}, **T5},
    "nsp": {"objective": {"name": "nsp"}, "input": {"name": "segment_pair"}},
    "mixture": {"objective": {"name": "mixture", "parts": ["mlm", "sbo"]}},
    "rtd mixture": {
        "objective": {"name": "mixture", "parts": [{"name": "rtd", "width": 0.5}, {"name": "rtd", "width": 0.25}]},
        "model.preset": "electra_small",
        "model.d_embedding": 16,
    },
    "packed": {"input": {"name": "packed"}},
    "static": {"objective": {"name": "mlm", "masking": "static", "copies": 2}},
    "batch": {"train.batch_start": 2, "train.batch_warmup": 0.8},
    "length": {"data.short_tokens": 12, "data.short_share": 0.5},
    "grouping": {"data.grouping": "length"},
    **{name: {"train.optimiser": {"name": name}} for name in ("adam", "lamb", "adafactor", "sgd", "muon")},
}


def write_corpus(file: Path, *, documents: int = 24) -> Path:
    """Documents of a few sentences of a few words."""
    draw = random.Random(0)
    texts = [[" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) + "." for _ in range(3)] for _ in range(documents)]
    file.write_text("\n\n".join("\n".join(lines) for lines in texts) + "\n", encoding="utf-8")
    return file


def recipe(folder: Path, case: str) -> Path:
    """The recipe of a case, as a file."""
    from tunesmith.base.config import merge, toml_text
    from tunesmith.recipes.settings import nested

    file = folder / f"{case}.toml"
    changes = {name: value for name, value in CASES[case].items()}
    tree = {name: dict(part) for name, part in BASE.items()}
    for name in ("objective", "input"):
        tree[name] = changes.pop(name, tree[name])
    file.write_text(toml_text(merge(tree, nested(changes))), encoding="utf-8")
    return file


class Listener:
    """Does something after a step; knows what it heard."""

    def __init__(self, at=None, action=None):
        self.at, self.action, self.steps, self.notes = at, action, [], []

    def note(self, text):
        self.notes.append(text)

    def stage(self, title):
        self.notes.append(title)

    def step(self, progress, total):
        self.steps.append(progress.step)
        if progress.step == self.at:
            self.action()


def leave():
    raise SystemExit(1)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Probe(Feed):
    """A feed that writes down which sequence is drawn in which step."""

    seen: list = []

    def step(self, progress, spent):
        self.at = progress.step
        return super().step(progress, spent)

    def draw(self, place):
        self.seen.append([self.at, place.stage, place.epoch, place.number])
        return super().draw(place)


def kept(run: Path) -> dict:
    """All that two runs that are the same must share: bytes of files, and the curve but for its times."""
    found: dict = {
        str(path.relative_to(run)): path.read_bytes()
        for pattern in ("*.safetensors", "tokenizer*.json", "config.json", "run.toml")
        for path in run.rglob(pattern)
    }
    curve = json.loads((run / "curve.json").read_text(encoding="utf-8"))
    found["curve"] = [{key: value for key, value in point.items() if key != "seconds"} for point in curve]
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    found["metrics"] = {k: v for k, v in metrics.items() if "second" not in k and "memory" not in k}
    return found


def assert_same_runs(got: Path, want: Path) -> None:
    """Fail with the names of what differs."""
    got_kept, want_kept = kept(got), kept(want)
    assert got_kept.keys() == want_kept.keys()
    differing = [name for name in want_kept if got_kept[name] != want_kept[name]]
    assert not differing, differing
    left = [str(path) for path in got.rglob("*") if path.name.startswith(".") or path.name == "checkpoint"]
    assert left == []


def main(job: dict) -> None:
    """One process of a run."""
    Probe.seen = []
    module.Feed = Probe
    listener = Listener(job.get("step"), {"die": die, "interrupt": interrupt, None: leave}[job.get("action")])
    try:
        module.pretrain(
            job["recipe"],
            job["corpus"],
            out=job["out"],
            settings=job.get("settings", {}),
            resume=job.get("resume", False),
            listener=listener,
        )
    except Interrupted:
        pass
    finally:
        if "places" in job:
            rank = os.environ.get("RANK", "0")
            Path(f"{job['places']}.{rank}.json").write_text(json.dumps(Probe.seen))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

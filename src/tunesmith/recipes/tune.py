"""Tune a model on labelled data with one method: read, split, encode, train or solve, evaluate, save."""

import copy
import hashlib
import json
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith.base.choices import choose
from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import remove_quietly, write_atomic, write_json
from tunesmith.base.shapes import Tensor
from tunesmith.models._checkpoint import check_plain
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.recipes.head import head_for, put_head, why_fresh
from tunesmith.recipes.listener import Listener, Silent
from tunesmith.recipes.open import fingerprint, longest_text, need_tokenizer, set_tokenizer
from tunesmith.recipes.output import METRICS, OutputFolder
from tunesmith.recipes.pace import make_pace
from tunesmith.recipes.prepare import Prepared, prepare
from tunesmith.recipes.reporting import predictions_of, write_report
from tunesmith.recipes.run import Run, load_run
from tunesmith.recipes.saved import FORMAT, Opened, RunRecord, open_base, save_run
from tunesmith.recipes.settings import TuneSettings, nested, tune_settings
from tunesmith.recipes.tracking import check_track, tracked
from tunesmith.recipes.whereabouts import examples_words
from tunesmith.report.trial import CurvePoint
from tunesmith.tasks import Labelled, TaskConfig
from tunesmith.text.batching import Order, Packed, cut_by_tokens, pack
from tunesmith.train.checkpoint import Checkpoints, Progress
from tunesmith.train.evaluate import logits_of
from tunesmith.train.loop import Evaluation, train
from tunesmith.train.optim.adamw import AdamWConfig
from tunesmith.train.parallel import Parallel
from tunesmith.train.precision import (
    Machine,
    choose_machine,
    frozen_in,
    peak_memory_bytes,
    reset_peak_memory,
    reuse_memory,
)
from tunesmith.train.step import Stepper
from tunesmith.train.update import Update
from tunesmith.tuning import Attached, Data, MethodConfig


def tune(
    model: str | Path | Model,
    data: str | Path,
    *,
    method: str | MethodConfig = "lora",
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
    **method_fields: Any,
) -> Run:
    """Tune a model and give back the run.

    Args:
        model: Folder, hub id, preset, run, adapter, or a model (which is copied, not changed).
        data: File, folder with splits, or hub id.
        method: Name of a method, or its settings.
        out: Folder of the run; a temporary one, gone with the run, if None.
        settings: Deep settings, such as ``{"train.epochs": 3}``.
        resume: Go on with what stands in ``out``.
        overwrite: Delete what stands in ``out``.
        listener: Hears of the progress.
        **method_fields: Settings of the method, such as ``rank=16``.

    Raises:
        UserError: Something that the caller can mend; one line says what.
    """
    chosen = method if isinstance(method, MethodConfig) else choose("method", {"name": method, **method_fields})
    resolved = tune_settings(nested(settings or {}), {"method": chosen})
    if out is None:
        temporary = Path(tempfile.mkdtemp(prefix="tunesmith-"))
        try:
            run = run_tune(model, data, temporary / "run", resolved, listener=listener)
        except BaseException:
            remove_quietly(temporary)
            raise
        weakref.finalize(run, remove_quietly, temporary)
        return run
    return run_tune(model, data, Path(out), resolved, resume=resume, overwrite=overwrite, listener=listener)


def run_tune(
    model: str | Path | Model,
    data: str | Path,
    out: Path,
    settings: TuneSettings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
    prepared: Prepared | None = None,
) -> Run:
    """Tune with resolved settings; see `tune`."""
    listener = listener or Silent()
    check_track(settings.train.track)
    record = run_toml("tune", model, data, settings)
    with OutputFolder(out, record, resume=resume, overwrite=overwrite) as finished:
        if finished:
            listener.note(f"{out}: already finished")
            return load_run(out)
        if (out / METRICS).exists():
            listener.note(f"{out / METRICS}: damaged, so this run is made again")
        prepared = prepared or prepare(data, settings)
        for note in prepared.notes:
            listener.note(note)
        return _tune_in(model, out, settings, prepared, listener)


def run_toml(verb: str, model: str | Path | Model, data: str | Path, settings: TuneSettings) -> dict[str, Any]:
    """The resolved config of a run: it repeats the run."""
    name = model.source if isinstance(model, Model) else str(model)
    return {"verb": verb, "model": name, "source": str(data), **settings.model_dump(mode="json")}


def _tune_in(
    given: str | Path | Model, out: Path, settings: TuneSettings, prepared: Prepared, listener: Listener
) -> Run:
    """The run itself, in a folder that is ours."""
    seed = settings.train.seed
    task = prepared.task
    machine = choose_machine(settings.train.device, settings.train.precision)
    reset_peak_memory(machine.device)
    base = _open(given, settings)
    source = base.source if isinstance(given, Model) else str(given)
    base_fingerprint = fingerprint(source)
    head = head_for(base, task, settings.method)
    model = put_head(base, head, labels=task.labels, seed=seed)
    tokenizer = need_tokenizer(model)
    max_tokens = longest_text(model, wanted=settings.data.max_tokens, pair=task.pair is not None)
    parts = {name: task.encode(table, tokenizer, max_tokens=max_tokens) for name, table in prepared.tables.items()}
    for name, part in parts.items():
        if part.examples.truncated:
            listener.note(f"{name}: {part.examples.truncated} of {len(part)} texts cut to {max_tokens} tokens")
    reason = why_fresh(base, head, task.labels)
    if reason is not None:
        listener.note(f"fresh output layer: {reason}")
    absent = [name for name in model.fresh if reason is None or not name.startswith("head.output.")]
    if absent:
        listener.note(f"fresh weights (not in the checkpoint): {', '.join(absent)}")
    if "head.output.bias" in model.fresh:
        task.prepare_head(model.head or model, parts["train"].targets)
    before = {name: parameter.detach() for name, parameter in model.named_parameters()}
    attached = settings.method.attach(model, seed=seed)
    if isinstance(given, Model) and settings.method.saves != "model":
        saved = attached.state()
        frozen = {name: tensor for name, tensor in before.items() if name not in saved}
        _check_same_again(frozen, source, head, labels=task.labels, seed=seed)
    listener.note(f"computing in {machine.precision} on {machine.device.type}: {machine.reason}")
    outcome = _learn(attached, task, parts, settings, machine, out, listener)

    record = RunRecord(
        format=FORMAT,
        base=str(Path(source).resolve()) if Path(source).is_dir() else source,
        base_fingerprint=base_fingerprint,
        base_seed=seed,
        model=model.config,
        method=settings.method.model_dump(mode="json"),
        task=task.model_dump(mode="json"),
        max_tokens=max_tokens,
    )
    model.eval().cpu()
    save_run(out, attached, method=settings.method, record=record)
    run = Run(Opened(model, attached, task, record), task=task, metrics={}, folder=out, max_tokens=max_tokens)
    return _finish(run, parts, prepared, settings, outcome, machine, listener)


def _open(given: str | Path | Model, settings: TuneSettings) -> Model:
    if not isinstance(given, Model):
        return open_base(str(given), tokenizer=settings.tokenizer, seed=settings.train.seed)
    check_plain(given)
    base = copy.deepcopy(given)
    if settings.tokenizer is not None:
        set_tokenizer(base, settings.tokenizer)
    return base


def _check_same_again(
    frozen: Mapping[str, Tensor], source: str, head: HeadConfig, *, labels: tuple[str, ...], seed: int
) -> None:
    """A run that saves only what it changes must find the rest where the model came from.

    Raises:
        CheckpointError: The model has other weights than what it was loaded from.
    """
    again = dict(put_head(open_base(source, seed=seed), head, labels=labels, seed=seed).named_parameters())
    for name, tensor in frozen.items():
        if name not in again or not torch.equal(again[name], tensor.cpu()):
            raise CheckpointError(
                f"model: {name} is not as in {source or 'any folder'}: save the model first (tunesmith.save) "
                "and tune that folder"
            )


@dataclass(frozen=True)
class _Outcome:
    progress: Progress
    facts: Mapping[str, Any]


def _learn(
    attached: Attached,
    task: TaskConfig,
    parts: Mapping[str, Labelled],
    settings: TuneSettings,
    machine: Machine,
    out: Path,
    listener: Listener,
) -> _Outcome:
    """Solve for the parameters where the method can, else train them in the loop."""
    model, train_part, dev = attached.model, parts["train"], parts["dev"]
    reuse_memory()
    model.to(machine.device)
    started = time.monotonic()
    with frozen_in(torch.nn.ModuleList(model.stacks), machine.dtype):
        targets = task.linear_targets(train_part)
        data = Data(
            train=train_part.examples,
            dev=dev.examples,
            rows=targets.rows,
            targets=targets.values,
            loss=targets.loss,
            num_outputs=task.num_outputs,
            per_token=task.problem == "tags",
            score=lambda logits: task.score(task.metrics(logits, dev))[1],
            dtype=machine.dtype,
            key=lambda: (_frozen_hash(model), need_tokenizer(model).fingerprint()),
        )
        solution = settings.method.solve(attached, data)
        if solution is not None:
            seconds = time.monotonic() - started
            progress = Progress(step=0, seconds=seconds, examples=len(train_part), tokens=solution.tokens, done=True)
            return _Outcome(progress, solution.facts)
        pace = make_pace(settings, size=len(train_part), d_model=model.config.trunk.d_model)
        plan = pace.plan
        listener.note(
            f"{settings.method.choice_name()}: {plan.steps} steps of {pace.batch_size} sequences, "
            f"learning rate {pace.learning_rate:g}"
        )
        work = _Work(model, task, train_part, settings, pace.batch_size, machine)
        parameters = attached.parameters()
        optimiser = AdamWConfig().build(
            parameters, learning_rate=pace.learning_rate, weight_decay=settings.train.weight_decay
        )
        stepper = Stepper(
            work=work,
            module=model,
            updates=[Update("train", {"loss": 1.0}, parameters, optimiser)],
            parallel=Parallel(),
            device=machine.device,
            seed=settings.train.seed,
            learning_rate=pace.learning_rate,
            max_grad_norm=settings.train.max_grad_norm,
        )

        def evaluate() -> Evaluation:
            model.eval()
            logits = logits_of(model, dev.examples)
            model.train()
            return Evaluation(task.score(task.metrics(logits, dev))[1], None)

        model.compute_dtype = machine.dtype
        model.train()
        try:
            with tracked(listener, settings.train.track, out) as hearing:
                progress = train(
                    stepper,
                    plan,
                    evaluate=evaluate,
                    checkpoints=Checkpoints(out / "checkpoint"),
                    report=lambda progress: hearing.step(progress, plan.spent(progress)),
                )
        finally:
            model.compute_dtype = None
            model.eval()
    facts = {"steps": progress.step, "best_step": progress.best_step, "learning_rate": pace.learning_rate}
    return _Outcome(progress, facts)


class _Work:
    """What the loop learns from: packed micro-batches of one task's examples."""

    def __init__(
        self, model: Model, task: TaskConfig, part: Labelled, settings: TuneSettings, batch_size: int, machine: Machine
    ):
        self.model, self.task, self.part, self.machine = model, task, part, machine
        self.limit = settings.train.micro_batch_tokens
        self.order = Order(len(part), batch_size=batch_size, seed=settings.train.seed)
        self.last: list[list[int]] = []

    def micro_batches(self, progress: Progress) -> list[Packed]:
        lengths = self.part.examples.lengths
        self.last = cut_by_tokens(self.order.step(progress.step), lengths, max_tokens=self.limit)
        return [pack(self.part.examples, indices, device=self.machine.device) for indices in self.last]

    def describe(self, number: int | None = None) -> str:
        parts = self.last if number is None else [self.last[number]]
        return examples_words([i for part in parts for i in part], self.part.texts)

    def targets(self, batch: Packed) -> dict[str, int]:
        return {"loss": self.task.count(batch, self.part.targets)}

    def losses(self, batch: Packed, *, phase: str, noise: torch.Generator) -> dict[str, Tensor]:
        noisy = batch.with_noise(noise)
        logits = self.model.logits(noisy.token_ids, noisy.layout)
        return {"loss": self.task.loss(logits, noisy, self.part.targets)}


def _finish(
    run: Run,
    parts: Mapping[str, Labelled],
    prepared: Prepared,
    settings: TuneSettings,
    outcome: _Outcome,
    machine: Machine,
    listener: Listener,
) -> Run:
    """Evaluate in fp32, write the report and the metrics (last: they say that the run is whole)."""
    out, progress = run.folder, outcome.progress
    assert out is not None
    assert run.opened.attached is not None
    listener.stage("evaluating")
    logits = {name: logits_of(run.model, part.examples) for name, part in parts.items() if name != "train"}
    scores = {name: run.task.metrics(logits[name], parts[name]) for name in logits}
    trained = run.opened.attached.parameters()
    seconds = max(progress.seconds, 1e-9)
    metrics = {
        **scores,
        "metric": run.task.score(scores["dev"])[0],
        "examples_per_second": progress.examples / seconds,
        "tokens_per_second": progress.tokens / seconds,
        "train_seconds": progress.seconds,
        "peak_memory_bytes": peak_memory_bytes(machine.device),
        "trainable_parameters": sum(p.numel() for p in trained.values()),
        "total_parameters": sum(p.numel() for p in run.model.parameters()),
        "saved_bytes": sum(path.stat().st_size for path in out.glob("*.safetensors")),
        "precision": machine.precision,
        "truncated": {name: part.examples.truncated for name, part in parts.items()},
        **outcome.facts,
    }
    lines = predictions_of(run.task, logits["dev"], parts["dev"])
    write_atomic(out / "dev_predictions.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    points = [{name: point[name] for name in CurvePoint.__dataclass_fields__} for point in progress.curve]
    write_atomic(out / "curve.json", json.dumps(points))
    run.metrics = metrics
    facts = {**prepared.facts, "Model": run.opened.record.base if run.opened.record else ""}
    write_report(out, {settings.method.choice_name(): [(settings.train.seed, out, metrics)]}, run.task, facts=facts)
    write_json(out / METRICS, metrics)
    remove_quietly(out / "checkpoint")
    return run


def _frozen_hash(model: Model) -> str:
    """Hash of all weights that features depend on: those of the encoder and of the head, but for its output layer."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not name.startswith("head.output."):
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""What a run leaves behind, and the way back: a model folder, a PEFT adapter, or the tensors that changed.

``tunesmith.json`` beside them holds what only we know: the base model and its fingerprint, the method, the task, the
head. ``metrics.json`` is written last: a run without it is unfinished.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith.base import choices
from tunesmith.base.config import Config, build
from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import load_tensors, read_json, save_tensors, write_json
from tunesmith.models._checkpoint import head_from_hf, load, save
from tunesmith.models._keys import foreign_name
from tunesmith.models.model import Model, ModelConfig
from tunesmith.recipes.head import put_head
from tunesmith.recipes.open import RUN_FILE, fingerprint, is_run, lineage, made_on, open_whole, set_tokenizer
from tunesmith.recipes.output import need_finished
from tunesmith.tasks import TaskConfig
from tunesmith.text.tokenizer import load_tokenizer
from tunesmith.tuning import Attached, MethodConfig
from tunesmith.tuning._peft import Adapter, attach_peft, head_size, read_peft, save_peft, why_not_peft
from tunesmith.tuning.lora import AttachedLoRA

FORMAT = 1
_CHOICES = ("name", "head", "position", "feedforward", "norm")  # keys whose value can name a choice


class RunRecord(Config):
    """tunesmith.json."""

    format: int
    base: str
    base_fingerprint: str
    base_seed: int
    model: ModelConfig
    method: dict[str, Any]
    task: dict[str, Any]
    max_tokens: int


@dataclass
class Opened:
    """A run read back.

    Attributes:
        model: The model with its method attached, in evaluation mode.
        attached: The method, None for whole models.
        task: The task, None for adapters made elsewhere.
        record: tunesmith.json, None for adapters made elsewhere.
    """

    model: Model
    attached: Attached | None
    task: TaskConfig | None
    record: RunRecord | None


def save_run(folder: Path, attached: Attached, *, method: MethodConfig, record: RunRecord) -> None:
    """Write the model's files of a run.

    Raises:
        CheckpointError: The form of the method cannot hold the model.
        StorageError: The folder cannot be written.
    """
    model = attached.model
    if method.saves == "model":
        save(model, folder)
    elif isinstance(attached, AttachedLoRA) and why_not_peft(attached) is None:
        save_peft(folder, attached, base=record.base)
    else:
        head = model.config.head.choice_name() if model.config.head else None
        tensors = {_delta_name(name, model, head): tensor for name, tensor in attached.state().items()}
        save_tensors(folder / "delta.safetensors", tensors)
    if model.tokenizer is not None:
        model.tokenizer.save(folder)
    write_json(folder / RUN_FILE, record.model_dump(mode="json"))


def open_base(name: str, *, tokenizer: str | None = None, seed: int = 0) -> Model:
    """A whole model, to be tuned; what a run or adapter has added to its own base model is folded in.

    Args:
        name: Folder of a model, run or adapter, hub id or preset.
        tokenizer: Folder of a tokenizer to use in place of the model's.
        seed: Seed of fresh weights.

    Raises:
        CheckpointError: There is no such model, it is damaged or unfinished, or what it was made on is gone or changed.
    """
    folder = Path(name)
    if os.path.isfile(folder / "run.toml"):
        need_finished(folder)
        if not is_run(folder) and not (folder / "config.json").is_file():
            one = next((path for path in sorted(folder.glob(f"*/*/{RUN_FILE}"))), folder / "METHOD" / "seed-N" / "-")
            raise CheckpointError(f"{folder}: a comparison, not a model: name one of its runs, such as {one.parent}")
    if len(lineage(name)) == 1:
        model = open_whole(name, seed=seed)
    else:
        opened = open_run(folder) if is_run(folder) else open_adapter(folder)
        if opened.attached is not None:
            opened.attached.merge()
            opened.attached.detach()
        model = opened.model
        model.source = name
    if tokenizer is not None:
        set_tokenizer(model, tokenizer)
    return model


def open_run(folder: Path) -> Opened:
    """Read a run of ours back.

    Raises:
        CheckpointError: It is unfinished or damaged, or its base model is gone or has changed.
    """
    record = _read_record(folder)
    need_finished(folder)
    task, method = _task_and_method(folder, record)
    if method.saves == "model":
        model = load(folder)
        return Opened(model.eval(), None, task, record)
    try:
        now = fingerprint(record.base)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: its base model cannot be read: {error}") from None
    if now != record.base_fingerprint:
        raise CheckpointError(f"{folder}: its base model {record.base} has changed since: the run no longer fits it")
    base = open_base(record.base, seed=record.base_seed)
    base.tokenizer = load_tokenizer(folder) or base.tokenizer
    model = put_head(base, record.model.head, labels=record.model.labels, seed=record.base_seed)
    if method.saves == "peft" and not (folder / "delta.safetensors").is_file():
        attached = attach_peft(model, read_peft(folder), source=str(folder))
    else:
        attached = method.attach(model, seed=record.base_seed)
        _load_delta(folder / "delta.safetensors", attached)
    model.source = str(folder)
    return Opened(model.eval(), attached, task, record)


def open_adapter(folder: Path) -> Opened:
    """Read a PEFT adapter made elsewhere, on its base model.

    Raises:
        CheckpointError: It is no LoRA adapter, or does not fit its base model.
    """
    adapter = read_peft(folder)
    model = open_base(made_on(str(folder)) or adapter.base)
    model.tokenizer = load_tokenizer(folder) or model.tokenizer
    model = _head_for(model, adapter)
    attached = attach_peft(model, adapter, source=str(folder))
    return Opened(model.eval(), attached, None, None)


def _head_for(model: Model, adapter: Adapter) -> Model:
    """The base model with the head that the adapter was made for."""
    name = {"SEQ_CLS": "classify", "TOKEN_CLS": "tag"}.get(adapter.task or "")
    if name is None:
        return model
    size = head_size(adapter, model.family, name)
    fields = {**model.config.foreign, **model.family.to_hf(model.config.stacks)}
    if size is not None:
        fields["id2label"] = {str(i): f"LABEL_{i}" for i in range(size)}
    head = head_from_hf(model.family.heads[name], fields, source=model.source)
    if head == model.config.head:
        return model
    return model.with_head(head)


def _read_record(folder: Path) -> RunRecord:
    path = folder / RUN_FILE
    tree = read_json(path)
    if tree.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format must be {FORMAT}, got {tree.get('format')!r}: made by another version")
    outside = _outside_choice(tree)
    if outside is not None:
        raise CheckpointError(f"{path}: names {outside!r}, code from outside tunesmith, which is never loaded")
    try:
        return build(RunRecord, tree)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _outside_choice(tree: object) -> str | None:
    """The first choice in a record that would import a module of its own choosing; None where there is none."""
    if not isinstance(tree, Mapping):
        return None
    for key, value in tree.items():
        if key in _CHOICES and isinstance(value, str) and ":" in value:
            return value
        found = None if key == "foreign" else _outside_choice(value)  # what transformers keeps there is never built
        if found is not None:
            return found
    return None


def _task_and_method(folder: Path, record: RunRecord) -> tuple[TaskConfig, MethodConfig]:
    made = {}
    for family, fields in (("task", record.task), ("method", record.method)):
        try:
            made[family] = choices.choose(family, fields)
        except ValueError as error:
            raise CheckpointError(f"{folder / RUN_FILE}: {family}.{error}") from None
    task, method = made["task"], made["method"]
    assert isinstance(task, TaskConfig)
    assert isinstance(method, MethodConfig)
    return task, method


def _delta_name(name: str, model: Model, head: str | None) -> str:
    """Foreign names where the family has them: the file can be read without us."""
    try:
        return foreign_name(name, model.family, head).replace("@", "")
    except KeyError:
        return name


def _load_delta(path: Path, attached: Attached) -> None:
    model = attached.model
    head = model.config.head.choice_name() if model.config.head else None
    tensors = load_tensors(path)
    names = {_delta_name(name, model, head): name for name in attached.state()}
    if set(tensors) != set(names):
        odd = sorted(set(tensors) ^ set(names))[0]
        raise CheckpointError(f"{path}: {odd} is missing here or has no place in the model")
    own = dict(model.named_parameters())
    for foreign, tensor in tensors.items():
        if tensor.shape != own[names[foreign]].shape or not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path} {foreign}: has the wrong shape or holds NaN")
    attached.load({names[foreign]: tensor for foreign, tensor in tensors.items()})

"""Models from and to Hugging Face folders, hub ids and presets."""

from pathlib import Path
from typing import Any

import torch

from tunesmith.base import choices
from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.base.files import read_json, write_json
from tunesmith.base.shapes import Tensor
from tunesmith.models import Family, Foreign, HeadTable
from tunesmith.models._expressible import fault_of_stacks
from tunesmith.models._fill import check_count, check_fits, fill
from tunesmith.models._folder import read_config, read_tensors, resolve, write_tensors
from tunesmith.models._keys import foreign_name, join_fused, normalise, rename, split_fused, twofold_biases, with_prefix
from tunesmith.models.model import Model, ModelConfig
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.choice import ChoiceConfig
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.pool import PoolConfig
from tunesmith.nn.head.pretrain import PretrainConfig
from tunesmith.nn.head.span import SpanConfig
from tunesmith.nn.head.tag import TagConfig
from tunesmith.nn.init import init_normal
from tunesmith.text.tokenizer import load_tokenizer

_PROBLEMS = {
    "regression": "regression",
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
}
_WithTable = LMConfig | PretrainConfig


def load(name: str | Path, *, seed: int = 0) -> Model:
    """Load a model from a folder in the Hugging Face layout, or from the hub.

    Args:
        name: Folder or hub id.
        seed: Seed of fresh weights.

    Raises:
        CheckpointError: The folder is no model of a known family, or is damaged; the line names the tensor or field.
    """
    folder = resolve(name)
    foreign = read_config(folder)
    tensors = read_tensors(folder)
    settle = _family(foreign, source=str(name)).settle
    foreign = foreign if settle is None else {**foreign, **settle(tensors, foreign)}
    config = config_from_hf(foreign, source=str(name))
    check_count(config, tensors, source=str(name))
    with torch.device("meta"):  # its sizes may be anything: they cost memory only once the file has shown them
        frame = _model(config, source=str(name))
        tensors = normalise(tensors, frame.family, foreign, prefix=frame.base_prefix)
        tensors = split_fused(tensors, frame.family, config.stacks, source=str(name))
        head = _stored_head(frame, tensors)
        if head != config.head:
            config = config.model_copy(update={"head": head})
            frame = _model(config, source=str(name))
    check_fits(frame, tensors)
    model = _model(config, source=str(name))
    model.architecture = (foreign.get("architectures") or [model.family.bare])[0]
    model.tokenizer = load_tokenizer(folder)
    if (folder / "generation_config.json").is_file():
        model.generation = read_json(folder / "generation_config.json")
    if model.tokenizer is not None and model.tokenizer.vocab_size > model.config.trunk.vocab_size:
        raise CheckpointError(
            f"{name}: its tokenizer makes ids up to {model.tokenizer.vocab_size - 1}, but the model has "
            f"{model.config.trunk.vocab_size} token vectors: they do not belong together"
        )
    fill(model, tensors, part="stacks", strict=True, seed=seed)
    fill(model, model.aside, part="head", strict=model.head is not None, seed=seed)
    return model.eval()


def from_preset(name: str, *, seed: int = 0) -> Model:
    """A model with random weights from a family's preset.

    Raises:
        SettingError: There is no such preset.
    """
    for family in choices.names("model"):
        table: Family = choices.module("model", family).FAMILY
        if name in table.presets:
            foreign = {**table.presets[name], "model_type": table.name, "architectures": [table.bare]}
            model = _model(config_from_hf(foreign, source=name), source=name)
            stds = table.fresh_stds(model.config.stacks)
            init_normal(model, std=model.config.trunk.initial_std, seed=seed, name=name, stds=stds)
            return model
    raise SettingError(f"model: there is no preset {name!r}")


def head_from_hf(table: HeadTable, foreign: Foreign, *, source: str) -> HeadConfig:
    """Settings of a family's head from config.json.

    Raises:
        CheckpointError: A field is wrong; the line names it.
    """
    try:
        return table.from_hf(foreign)
    except ValueError as error:
        raise CheckpointError(f"{source} {_config_fault(error)}") from None


def preset_names() -> list[str]:
    """Names of all presets."""
    return [name for family in choices.names("model") for name in choices.module("model", family).FAMILY.presets]


def save(model: Model, folder: str | Path) -> None:
    """Write a model (config, weights, tokenizer) in the Hugging Face layout.

    Raises:
        CheckpointError: transformers has no class for these settings (the line says why), or the model has an adapter.
        StorageError: The folder cannot be written.
    """
    folder = Path(folder)
    check_plain(model)
    config = hf_config(model)
    bare = config["architectures"][0] == model.family.bare
    named = model.foreign_tensors()
    for bias, again in twofold_biases(model.family).items():
        if again.removesuffix("bias") + "weight" in named:  # an untied table has a bias beside it
            named[again] = named[bias].clone()
    if config.get("tie_word_embeddings") is False:
        named |= {again: named[name].clone() for again, name in model.family.repeat.items() if name in named}
    if model.architecture is not None:
        named |= model.aside  # other heads of the same file: nothing that was loaded is lost
    named = join_fused(named, model.family, model.config.stacks)
    prefix = model.base_prefix
    renamed = {} if model.family.renamed is None else model.family.renamed(config)
    tensors = {
        with_prefix(rename(name, renamed), model.family, bare=bare, prefix=prefix): tensor
        for name, tensor in named.items()
    }
    write_tensors(folder, tensors)
    if model.tokenizer is not None:
        model.tokenizer.save(folder)
    if model.generation:
        write_json(folder / "generation_config.json", model.generation)
    write_json(folder / "config.json", config)


def check_plain(model: Model) -> None:
    """Refuse a model that more than its settings is in.

    Raises:
        CheckpointError: An adapter is attached to it.
    """
    injected = model.injected()
    if injected:
        raise CheckpointError(
            f"model: has an adapter ({injected[0]}): tunesmith.save(model, FOLDER) merges it: take that folder"
        )


def why_not_hf(model: Model) -> str | None:
    """Why transformers cannot express this model's stacks or head; None where it can."""
    head = model.config.head
    own = model.config.family == "custom"  # holds any settings as they are
    fault = None if own else fault_of_stacks(model.family, model.config.stacks, model.config.foreign)
    if fault is not None:
        return fault
    if head is None:
        return None
    name = head.choice_name()
    if name not in model.family.heads:
        return f"transformers has no {name} head for {model.config.family}"
    if isinstance(head, ClassifyConfig | LMConfig):
        expected = model.family.heads[name].from_hf(hf_fields(model))
        if head != expected:
            other = next(f for f in type(head).model_fields if getattr(head, f) != getattr(expected, f))
            return f"its head has {other} = {getattr(head, other)!r}, transformers' has {getattr(expected, other)!r}"
    return None


def hf_fields(model: Model) -> dict[str, Any]:
    """config.json of a model, but for ``architectures``."""
    config, head = model.config, model.config.head
    fields = {**config.foreign, **model.family.to_hf(config.stacks), "model_type": model.family.name}
    for stale in ("_name_or_path", "torch_dtype", "num_labels", "problem_type", "gradient_checkpointing"):
        fields.pop(stale, None)
    fields["dtype"] = "float32"
    if head is not None and model.family.head_to_hf is not None:
        fields |= model.family.head_to_hf(head)
    table = None if head is None else model.family.heads.get(head.choice_name())
    if isinstance(head, ClassifyConfig | TagConfig):
        labels = config.labels or tuple(f"LABEL_{i}" for i in range(head.num_labels))
        fields["id2label"] = {str(i): label for i, label in enumerate(labels)}
        fields["label2id"] = {label: i for i, label in enumerate(labels)}
    if isinstance(head, SpanConfig | PretrainConfig):  # two outputs, whatever labels another head had
        fields = {key: value for key, value in fields.items() if key not in ("id2label", "label2id")}
    if model.encoder is None and isinstance(head, ClassifyConfig) and fields.get("pad_token_id") is None:
        fields["pad_token_id"] = _pad_id(model, fields)  # without it transformers refuses batches
    if isinstance(head, ClassifyConfig):
        fields["problem_type"] = _PROBLEMS[head.problem]
    expected = None if table is None else table.from_hf(fields)  # what is said only where the family would not say it
    if isinstance(head, ClassifyConfig | TagConfig | ChoiceConfig) and expected is not None:
        if head.dropout != getattr(expected, "dropout", None):
            fields[model.family.head_dropout] = head.dropout
    if isinstance(head, _WithTable) and isinstance(expected, _WithTable) and head.table != expected.table:
        fields["tie_word_embeddings"] = head.table == "tied"
    return fields


def hf_config(model: Model) -> dict[str, Any]:
    """config.json of a model.

    Raises:
        CheckpointError: transformers cannot express the stacks or the head.
    """
    reason = why_not_hf(model)
    if reason is not None:
        raise CheckpointError(f"model: cannot be written in the Hugging Face layout: {reason}")
    head = model.config.head
    alone = model.decoder is None and model.family.encoder_only
    bare = model.family.encoder_only[0] if alone else model.family.bare
    name = model.family.heads[head.choice_name()].architecture if head else bare
    return {**hf_fields(model), "architectures": [model.architecture or name]}


def _pad_id(model: Model, fields: Foreign) -> int | None:
    """The tokenizer's padding, or a special token that no text ends in: the last token that is none is the one read."""
    given = None if model.tokenizer is None else model.tokenizer.pad_id
    ends = fields.get("eos_token_id")
    ends = ends[0] if isinstance(ends, list) and ends else ends
    last = None if model.tokenizer is None else model.tokenizer.encode(["a"], max_tokens=None).ids[0][-1:]
    good = [i for i in (given, ends, fields.get("bos_token_id")) if isinstance(i, int) and [i] != last]
    return next((i for i in good if 0 <= i < model.config.trunk.vocab_size), None)


def _tables(model: Model) -> list[tuple[str, str]]:
    """Foreign modules of an output matrix of the head's own, and foreign names of the bias that goes with them."""
    head = model.config.head
    keys = model.family.heads[head.choice_name()].keys if head else {}
    stems = [name.removesuffix("table") for name in keys if name.rpartition(".")[2] == "table"]
    return [(keys[stem + "table"], keys.get(stem + "bias", "")) for stem in stems]


def _stored_head(model: Model, tensors: dict[str, Tensor]) -> HeadConfig | None:
    """The head that a file's tensors show where config.json leaves it open, or is wrong.

    transformers leaves an output matrix untied, whatever config.json says, where the file holds another one than the
    token table. One that repeats the token table is taken out.
    """
    head = model.config.head
    if isinstance(head, PoolConfig) and model.family.heads["pool"].keys["dense"] + ".weight" not in tensors:
        return None  # saved without its pooler
    if isinstance(head, _WithTable) and head.table == "tied":
        stack = "decoder" if model.encoder is None else "encoder"
        shared = tensors.get(foreign_name(f"{stack}.embeddings.tokens.weight", model.family, None))
        for name in [table + ".weight" for table, _ in _tables(model)]:
            if name in tensors and shared is not None and torch.equal(tensors[name], shared):
                del tensors[name]
            elif name in tensors:
                return head.model_copy(update={"table": "own"})
    return head


def config_from_hf(foreign: dict[str, Any], *, source: str) -> ModelConfig:
    """What shapes a model, from config.json."""
    family = _family(foreign, source=source)
    named = foreign.get("architectures") or [family.bare]
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise CheckpointError(f"{source} config.json architectures: must be a list of names, got {named!r}")
    head_name = next((name for name, table in family.heads.items() if table.architecture == named[0]), None)
    try:
        head = family.heads[head_name].from_hf(foreign) if head_name else None
        stacks = family.from_hf(foreign)
        return ModelConfig(
            family=family.name.replace("-", "_"),
            encoder=stacks.encoder,
            decoder=None if named[0] in family.encoder_only else stacks.decoder,
            head=head,
            labels=_label_names(foreign) if head_name in ("classify", "tag") else (),
            foreign={key: value for key, value in foreign.items() if key not in ("architectures",)},
        )
    except ValueError as error:
        raise CheckpointError(f"{source} {_config_fault(error)}") from None


def _model(config: ModelConfig, *, source: str) -> Model:
    """An empty model."""
    try:
        model = Model(config)
    except RuntimeError as error:  # torch's word for no memory
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{source} config.json: no model of these sizes can be made here ({reason})") from None
    model.source = source
    return model


def _family(foreign: Foreign, *, source: str) -> Family:
    """The family of a config.json; its file has the name of the model type, with ``_`` for ``-``."""
    kind = foreign.get("model_type")
    name = kind.replace("-", "_") if isinstance(kind, str) else kind
    found: Family | None = choices.module("model", name).FAMILY if name in choices.names("model") else None
    if found is None or found.name != kind:
        known = ", ".join(choices.module("model", each).FAMILY.name for each in choices.names("model"))
        raise CheckpointError(f"{source} config.json model_type: must be one of {known}, got {kind!r}")
    return found


def _label_names(foreign: Foreign) -> tuple[str, ...]:
    """Names in ``id2label``, in the order of their numbers."""
    names = foreign.get("id2label") or {}
    if not isinstance(names, dict) or not all(str(key).isdecimal() for key in names):
        raise CheckpointError(f"config.json id2label: must be a table from numbers to names, got {names!r}")
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _config_fault(error: ValueError) -> str:
    text = str(error).splitlines()[0]
    return text if text.startswith("config.json") else f"config.json: {text}"

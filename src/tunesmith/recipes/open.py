"""Open a model by any name: a folder of ours or of Hugging Face's, a PEFT adapter, a hub id, a preset."""

import hashlib
import os
from pathlib import Path

from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.base.files import file_hash
from tunesmith.models._checkpoint import from_preset, head_from_hf, load, preset_names
from tunesmith.models._folder import read_config, resolve
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.text.tokenizer import Tokenizer, load_tokenizer

RUN_FILE = "tunesmith.json"


def is_run(folder: Path) -> bool:
    """Whether a folder is a run of ours."""
    return os.path.isfile(folder / RUN_FILE)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter and no model."""
    return os.path.isfile(folder / "adapter_config.json") and not os.path.isfile(folder / "config.json")


def open_base(name: str, *, tokenizer: str | None = None, seed: int = 0) -> Model:
    """A whole model, to be tuned: a Hugging Face folder, a hub id, or a preset (random weights).

    Args:
        name: Folder, hub id or preset.
        tokenizer: Folder of a tokenizer to use in place of the model's.
        seed: Seed of fresh weights.

    Raises:
        CheckpointError: There is no such model, or it is damaged.
    """
    if name in preset_names() and not Path(name).exists():
        model = from_preset(name, seed=seed)
    else:
        model = load(name, seed=seed)
    if tokenizer is not None:
        set_tokenizer(model, tokenizer)
    return model


def set_tokenizer(model: Model, tokenizer: str) -> None:
    """Give a model the tokenizer of a folder.

    Raises:
        CheckpointError: There is none, or it makes ids that the model has no vectors for.
    """
    given = open_tokenizer(tokenizer)
    if given.vocab_size > model.config.trunk.vocab_size:
        raise CheckpointError(
            f"tokenizer: {tokenizer} makes ids up to {given.vocab_size - 1}, but the model has "
            f"{model.config.trunk.vocab_size} token vectors: they do not belong together"
        )
    model.tokenizer = given


def open_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer of a folder.

    Raises:
        CheckpointError: There is none.
    """
    found = load_tokenizer(Path(folder))
    if found is None:
        raise CheckpointError(f"tokenizer: {folder} holds no tokenizer.json, vocab.txt, or vocab.json and merges.txt")
    return found


def need_tokenizer(model: Model) -> Tokenizer:
    """The model's tokenizer.

    Raises:
        CheckpointError: It has none.
    """
    if model.tokenizer is None:
        raise CheckpointError(f"{model.source}: has no tokenizer files: name a folder that has with tokenizer=FOLDER")
    return model.tokenizer


def longest_text(model: Model, *, wanted: int, pair: bool) -> int:
    """The longest text that the model takes, in tokens, and at most ``wanted``.

    Raises:
        CheckpointError: There is no tokenizer, or the model has no segment for a second text.
        SettingError: So few tokens leave no room beside the special ones.
    """
    tokenizer, encoder = need_tokenizer(model), model.config.trunk
    longest, special = min(wanted, encoder.max_positions), tokenizer.special_tokens(pair=pair)
    if longest <= special:
        raise SettingError(
            f"data.max_tokens: must leave room beside {special} special tokens, got {wanted} "
            f"(and the model has {encoder.max_positions} positions)"
        )
    segments = tokenizer.encode(["a"], ["a"], max_tokens=None).segments[0] if pair else []
    highest = max(segments, default=0)
    if encoder.segments is not None and highest >= encoder.segments:
        raise CheckpointError(
            f"{model.source}: its tokenizer puts a second text into segment {highest}, but config.json "
            f"type_vocab_size is {encoder.num_segments}: join the two texts into one column"
        )
    return longest


def task_head(model: Model, problem: str) -> HeadConfig:
    """The family's head for a kind of task, as its own architecture has it.

    Raises:
        CheckpointError: The family has none.
    """
    name = "tag" if problem == "tags" else "classify"
    table = model.family.heads.get(name)
    if table is None:
        raise CheckpointError(f"{model.source}: {model.config.family} has no {name} head")
    fields = {**model.config.foreign, **model.family.to_hf(model.config.stacks)}
    return head_from_hf(table, fields, source=model.source)


def fingerprint(name: str) -> str:
    """Hash of a model's weights and config, or the name of a preset; it tells whether a base model is still the same.

    Raises:
        CheckpointError: There is no such model.
    """
    if name in preset_names() and not Path(name).exists():
        return f"preset {name}"
    folder = resolve(name)
    digest = hashlib.sha256(str(sorted(read_config(folder).items(), key=lambda item: item[0])).encode())
    for path in sorted(folder.glob("model*.safetensors")):
        digest.update(file_hash(path).encode())
    return digest.hexdigest()

"""What a name of a model stands for: a whole model, a run, an adapter; whole models opened; tokenizer and head."""

import hashlib
import os
from pathlib import Path

from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.base.files import file_hash, read_json
from tunesmith.models._checkpoint import from_preset, head_from_hf, load, preset_names
from tunesmith.models._folder import read_config, resolve
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.text.tokenizer import Tokenizer, load_tokenizer

RUN_FILE = "tunesmith.json"
ADAPTER_FILE = "adapter_config.json"


def is_run(folder: Path) -> bool:
    """Whether a folder is a run of ours."""
    return os.path.isfile(folder / RUN_FILE)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter and no model."""
    return os.path.isfile(folder / ADAPTER_FILE) and not os.path.isfile(folder / "config.json")


def is_preset(name: str) -> bool:
    """Whether a name is a preset's, and no folder of that name hides it."""
    return name in preset_names() and not os.path.exists(name)


def made_on(name: str) -> str | None:
    """The base model of a run or adapter that holds no whole model itself; None for all other names.

    Raises:
        CheckpointError: The file that names it is damaged.
    """
    folder = Path(name)
    if os.path.isfile(folder / "config.json") or not (is_run(folder) or is_adapter(folder)):
        return None
    path, key = (folder / RUN_FILE, "base") if is_run(folder) else (folder / ADAPTER_FILE, "base_model_name_or_path")
    base = read_json(path).get(key)
    if not isinstance(base, str):
        raise CheckpointError(f"{path} {key}: must name the base model, got {base!r}")
    return str(folder / base) if is_adapter(folder) and (folder / base).is_dir() else base


def lineage(name: str) -> list[str]:
    """A model and what it was made on, and so on, down to a whole model.

    Raises:
        CheckpointError: A file that names a base model is damaged, or the way leads back to where it came from.
    """
    found, seen = [name], {os.path.realpath(name)}
    while (base := made_on(found[-1])) is not None:
        if os.path.realpath(base) in seen:
            raise CheckpointError(f"{found[-1]}: is made on {base}, which is made on it: one of the two is damaged")
        found.append(base)
        seen.add(os.path.realpath(base))
    return found


def open_whole(name: str, *, seed: int = 0) -> Model:
    """A whole model: a Hugging Face folder, a hub id, or a preset (random weights).

    Args:
        name: Folder, hub id or preset.
        seed: Seed of fresh weights.

    Raises:
        CheckpointError: There is no such model, or it is damaged.
    """
    return from_preset(name, seed=seed) if is_preset(name) else load(name, seed=seed)


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
    if encoder.num_segments and highest >= encoder.num_segments:  # without a table none is read
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
    """Hash of all that shapes a model's weights, or the name of a preset; it tells whether a base is still the same.

    That of a run or adapter covers its own files and the fingerprint of what it was made on.

    Raises:
        CheckpointError: There is no such model.
    """
    *layers, whole = lineage(name)
    found = _fingerprint_of_whole(whole)
    for layer in reversed(layers):
        digest = hashlib.sha256(found.encode())
        for path in (Path(layer) / file for file in (RUN_FILE, ADAPTER_FILE)):
            fields = read_json(path) if path.is_file() else {}
            for place in ("base", "base_model_name_or_path"):  # where the base stands may change; what it is may not
                fields.pop(place, None)
            digest.update(repr(sorted(fields.items())).encode())
        for path in (Path(layer) / file for file in ("adapter_model.safetensors", "delta.safetensors")):
            digest.update((file_hash(path) if path.is_file() else "").encode())
        found = digest.hexdigest()
    return found


def _fingerprint_of_whole(name: str) -> str:
    if is_preset(name):
        return f"preset {name}"
    folder = resolve(name)
    digest = hashlib.sha256(str(sorted(read_config(folder).items(), key=lambda item: item[0])).encode())
    for path in sorted(folder.glob("model*.safetensors")):
        digest.update(file_hash(path).encode())
    return digest.hexdigest()

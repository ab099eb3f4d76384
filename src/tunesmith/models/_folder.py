"""Checkpoint folders in the Hugging Face layout: find them, read config and tensors, write them."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import load_tensors, read_json, save_tensors, write_json
from tunesmith.base.shapes import Tensor

MAX_SHARD_BYTES = 5_000_000_000
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WANTED = ["*.json", "*.txt", "*.safetensors", "*.model"]


def resolve(name: str | Path) -> Path:
    """The local folder of a path or hub id; a hub id is downloaded once into the hub's own cache.

    Raises:
        CheckpointError: Neither a folder nor a hub id that can be had.
    """
    path = Path(name)
    if os.path.isdir(path):  # unlike Path's own, these never raise: a name may be too long for any file
        return path
    if os.path.isfile(path):
        raise CheckpointError(f"{name}: a file, but a model is a folder: name the folder that holds config.json")
    text = str(name)
    if path.is_absolute() or text.startswith(".") or not _HUB_ID.fullmatch(text):
        raise CheckpointError(f"{name}: no such folder")
    return _download(text)


def _download(hub_id: str) -> Path:
    import huggingface_hub  # half a second that local folders need not pay
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=_WANTED))
    except HFValidationError:
        raise CheckpointError(f"{hub_id}: no such folder, and not a hub id") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{hub_id}: no such folder, and the hub does not give it: {reason}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    return read_json(folder / "config.json")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, from one safetensors file or from shards.

    Raises:
        CheckpointError: No weights, weights only as pickle, a missing or damaged shard.
    """
    single = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if single.exists():
        return load_tensors(single)
    if index.exists():
        return _read_shards(folder, index)
    pickles = sorted([*folder.glob("pytorch_model*.bin"), *folder.glob("*.ckpt"), *folder.glob("*.pt")])
    if pickles:
        convert = (
            "import torch, safetensors.torch as s; s.save_file({k: v.clone() for k, v in "
            f"torch.load('{pickles[0].name}', weights_only=True).items()}}, 'model.safetensors')"
        )
        raise CheckpointError(
            f"{pickles[0]}: weights only as a pickle, which can run code, so it is never loaded: "
            f'convert it where you trust it: python -c "{convert}"'
        )
    raise CheckpointError(f"{folder}: no model.safetensors in it: is it the folder of a model?")


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index}: holds no weight_map from tensors to files")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if "/" in name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: {name!r} is not the name of a safetensors file in this folder")
        tensors |= load_tensors(folder / name)
    missing = sorted(set(places) - set(tensors))
    if missing:
        raise CheckpointError(f"{index}: names {missing[0]}, but {places[missing[0]]} does not hold it")
    return tensors


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write tensors as model.safetensors, or as shards with an index where they are too many bytes for one file."""
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if filled and filled + size > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    if len(shards) == 1:
        save_tensors(folder / "model.safetensors", shards[0])
        return
    places = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors(folder / file, shard)
        places |= dict.fromkeys(shard, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})

"""Features on disk, found by the hash of all that they depend on: other weights or tokens are another file."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tunesmith.base.errors import CheckpointError, StorageError
from tunesmith.base.files import cache_folder, load_tensors, save_tensors, tensor_metadata
from tunesmith.base.shapes import Float
from tunesmith.text.batching import Examples


def default_folder() -> Path:
    """``$TUNESMITH_CACHE/features``, or ``features`` in the user's cache folder for tunesmith."""
    return cache_folder("features")


def content_key(examples: Examples, parts: tuple[str, ...]) -> str:
    """Hash of the tokens and of all other things that features depend on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    for array in (examples.lengths, examples.ids, examples.segments):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def cached(
    folder: Path | None, key: str, compute: Callable[[], Float[np.ndarray, "M D"]]
) -> tuple[Float[np.ndarray, "M D"], bool]:
    """Features from the cache, or computed and put there; and whether they came from it.

    A file that is damaged, or whose content does not match its checksum, is computed anew and replaced.
    """
    if folder is None:
        return compute(), False
    path = folder / f"{key}.safetensors"
    found = _read(path, key)
    if found is not None:
        return found, True
    features = compute()
    metadata = {"key": key, "sha256": _checksum(features)}
    try:
        save_tensors(path, {"features": torch.from_numpy(features)}, metadata=metadata)
    except StorageError as error:
        raise StorageError(f"{error}; or set method.cache=none, or another folder with TUNESMITH_CACHE") from None
    return features, False


def _read(path: Path, key: str) -> Float[np.ndarray, "M D"] | None:
    if not path.exists():
        return None
    try:
        metadata = tensor_metadata(path)
        features = load_tensors(path)["features"].numpy()
    except (CheckpointError, KeyError):
        return None
    return features if metadata.get("key") == key and metadata.get("sha256") == _checksum(features) else None


def _checksum(features: Float[np.ndarray, "M D"]) -> str:
    return hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest()

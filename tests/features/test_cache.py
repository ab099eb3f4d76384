"""Features are found by their content: other weights, tokens or settings are another file; damaged files are none."""

import numpy as np
import pytest
import torch

import tunesmith as ts
from tunesmith.base.errors import StorageError
from tunesmith.features import cache
from tunesmith.features.cache import cached, content_key, default_folder
from tunesmith.features.extract import Reading, extract
from tunesmith.text.batching import Examples
from tunesmith.text.tokenizer import Encoded
from tunesmith.tuning import linear_probe


def examples(ids=((1, 2), (3,)), segments=None):
    ids = [list(row) for row in ids]
    return Examples(Encoded(ids, segments or [[0] * len(row) for row in ids], [], [False] * len(ids)))


def test_keys():
    keys = [
        content_key(examples(), ("weights", "tokenizer")),
        content_key(examples(), ("weights2", "tokenizer")),
        content_key(examples(), ("weights", "tokenizer2")),
        content_key(examples(), ("weightst", "okenizer")),
        content_key(examples(), ("weights", "tokenizer", "")),
        content_key(examples(ids=((1,), (2, 3))), ("weights", "tokenizer")),
        content_key(examples(ids=((1, 2), (4,))), ("weights", "tokenizer")),
        content_key(examples(segments=[[0, 1], [0]]), ("weights", "tokenizer")),
    ]
    assert len(set(keys)) == len(keys)
    assert content_key(examples(), ("weights", "tokenizer")) == keys[0]


class Compute:
    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def test_the_second_time_it_comes_from_the_disk(tmp_path):
    compute = Compute()
    first, hit = cached(tmp_path, "key", compute)
    assert not hit
    again, hit = cached(tmp_path, "key", compute)
    assert hit
    assert compute.times == 1
    assert again.dtype == np.float32
    assert np.array_equal(first, again)
    cached(tmp_path, "other", compute)
    assert compute.times == 2


def test_without_a_folder_nothing_is_kept(tmp_path):
    compute = Compute()
    assert not cached(None, "key", compute)[1]
    assert not cached(None, "key", compute)[1]
    assert compute.times == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:-3],
        lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),  # one bit of one number
        lambda whole: b"\x80" + whole[1:],
    ],
)
def test_a_damaged_file_is_computed_anew(damage, tmp_path):
    compute = Compute()
    wanted, _ = cached(tmp_path, "key", compute)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    found, hit = cached(tmp_path, "key", compute)
    assert not hit
    assert np.array_equal(found, wanted)
    assert cached(tmp_path, "key", compute)[1]
    assert compute.times == 2


def test_a_file_under_another_name_is_not_believed(tmp_path):
    compute = Compute()
    cached(tmp_path, "key", compute)
    (tmp_path / "key.safetensors").rename(tmp_path / "other.safetensors")
    assert not cached(tmp_path, "other", compute)[1]


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def fail(*arguments, **fields):
        raise StorageError("here: the disk is full")

    monkeypatch.setattr(cache, "save_tensors", fail)
    with pytest.raises(StorageError, match=r"method.cache=none"):
        cached(tmp_path, "key", Compute())


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "a"))
    assert default_folder() == tmp_path / "a" / "features"
    monkeypatch.delenv("TUNESMITH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_folder() == tmp_path / "b" / "tunesmith" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert default_folder() == tmp_path / "c" / ".cache" / "tunesmith" / "features"


def test_a_probe_uses_it_and_notices_changes(checkpoints, tiny_data, tmp_path, monkeypatch):
    """Same weights and texts: from the disk, the same bits. Other weights, tokenizer or reading: not."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    calls = []
    monkeypatch.setattr(linear_probe, "extract", lambda *a, **f: calls.append(1) or extract(*a, **f))
    file = tiny_data["classification"].file

    def probe(model=checkpoints["bert"], *, expect, settings=None, **fields):
        calls.clear()
        settings = {"train.precision": "fp32", **(settings or {})}
        run = ts.tune(model, file, method="linear_probe", settings=settings, **fields)
        assert len(calls) == expect
        assert run.metrics["features_cached"] == (expect == 0)
        return run.model.head.output.weight

    first = probe(expect=2)
    assert torch.equal(probe(expect=0), first)
    assert probe(expect=0, strengths=3).shape == first.shape
    probe(expect=2, pooling="first")
    probe(expect=2, layer=1)
    probe(expect=2, pooling="head")
    probe(expect=2, settings={"train.precision": "bf16"})
    probe(expect=2, settings={"data.max_tokens": 5})
    probe(expect=2, cache="none")

    changed = ts.load(checkpoints["bert"])
    with torch.no_grad():
        changed.encoder.blocks[1].feedforward.down.bias[3] += 1e-3
    ts.save(changed, tmp_path / "changed")
    assert not torch.equal(probe(tmp_path / "changed", expect=2), first)
    vocabulary = (tmp_path / "changed" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocabulary[5], vocabulary[6] = vocabulary[6], vocabulary[5]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    probe(expect=2, settings={"tokenizer": str(tmp_path / "other")})


@pytest.mark.parametrize("pooling", ["first", "mean", "head", "tokens"])
def test_features_are_what_the_head_would_read(pooling, checkpoints):
    from tunesmith.nn.head.classify import ClassifyConfig

    head = ClassifyConfig(num_labels=2, hidden="tanh")
    model = ts.load(checkpoints["bert"]).with_head(head).eval()
    lengths = [3, 1, 7, 3]
    stream = torch.Generator().manual_seed(0)
    ids = [torch.randint(5, 60, (length,), generator=stream).tolist() for length in lengths]
    found = torch.from_numpy(extract(model, examples(ids=ids), Reading(pooling), dtype=torch.float32))
    hidden = [model(torch.tensor([row])).hidden[0].detach() for row in ids]
    want = {
        "first": lambda x: x[:1],
        "mean": lambda x: x.mean(0, keepdim=True),
        "head": lambda x: torch.tanh(model.head.dense(x[:1])).detach(),
        "tokens": lambda x: x,
    }[pooling]
    torch.testing.assert_close(found, torch.cat([want(x) for x in hidden]), rtol=0, atol=1e-5)

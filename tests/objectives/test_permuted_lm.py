"""Permuted language modelling: who sees whom by brute force from the definition; the loss of transformers' XLNet."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from made_samples import BETWEEN, FIRST, couple, drawn, labels, likely, parts, row, single, vocabulary
from parity import assert_equal, perturbed
from toys import toy

from tunesmith.base.errors import SettingError
from tunesmith.models._checkpoint import load
from tunesmith.objectives.permuted_lm import PermutedLM, PermutedLMConfig

XLNET = {"vocab_size": 500, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}


def strong(config):
    """A random XLNet in which attention is far from even: who sees what at which distance matters."""
    model = perturbed(transformers.XLNetLMHeadModel, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "rel_attn" in name and "layer_norm" not in name:
                parameter.mul_(5)
    return model


def documents_of(batch):
    """Token ids, places of the targets, and who is hidden from whom."""
    owners, places = batch.source.layout.owners[batch.rows], batch.source.layout.places[batch.rows]
    for i, ids in enumerate(parts(batch.source)):
        hidden = batch.hidden[i].numpy()
        assert not hidden[len(ids) :].any() or len(ids) < hidden.shape[0]
        yield ids, places[owners == i].numpy(), hidden[: len(ids), : len(ids)]


def kinds_of(ids, targets):
    """Which tokens are targets, which are special, and which are neither."""
    target = np.isin(np.arange(len(ids)), targets)
    special = ids < FIRST
    assert not (target & special).any()
    return target, special, ~target & ~special


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
    st.sampled_from(["single", "couple", "row"]),
    st.sampled_from([2, 6]),
    st.sampled_from([1, 4, 256]),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 99),
)
def test_who_sees_whom(lengths, kind, one_in, perm_size, backward, seed):
    texts = {"single": single(*lengths, frame="xlnet"), "row": row(*lengths, frame="xlnet")}
    made = texts.get(kind) or couple(lengths, (3, 2), frame="xlnet")
    config = PermutedLMConfig(one_in=one_in, perm_size=perm_size, backward=backward)
    batch = PermutedLM(config).prepare(drawn(made, seed=seed))
    for ids, targets, hidden in documents_of(batch):
        target, special, plain = kinds_of(ids, targets)
        sees = ~hidden
        # tokens that are neither come first: all see them, and they see nothing else
        assert sees[:, plain].all()
        assert hidden[np.ix_(plain, ~plain)].all()
        # the others stand in one order; each sees those before it, and special ones themselves
        assert hidden[target, target].all()
        assert sees[special, special].all()
        ordered = np.flatnonzero(~plain)
        ranks = {int(i): int(sum(sees[i, j] for j in ordered if j != i)) for i in ordered}
        assert sorted(ranks.values()) == list(range(len(ordered)))
        for i, j in itertools.permutations(ordered, 2):
            assert sees[i, j] == (ranks[int(j)] < ranks[int(i)])
            if i // perm_size != j // perm_size:
                assert sees[i, j] == (j // perm_size < i // perm_size)
        # nothing of a target reaches its query through any number of layers: content sees itself and what is not hidden
        content = sees | np.eye(len(ids), dtype=bool)
        for _ in range(6):
            content = (content.astype(int) @ content.astype(int)) > 0
        reached = (sees.astype(int) @ content.astype(int)) > 0
        assert not reached[targets, targets].any()
        assert sees[targets].any(1).all()


@given(st.integers(0, 600), st.sampled_from([2, 6, 7]), st.integers(0, 99))
def test_one_token_of_so_many_is_predicted(length, one_in, seed):
    batch = PermutedLM(PermutedLMConfig(one_in=one_in)).prepare(drawn(single(length, frame="xlnet"), seed=seed))
    ((ids, targets, _),) = documents_of(batch)
    wanted = 0 if length < 2 else min(max(1, round(length / one_in)), length - 1)
    assert len(set(targets)) == len(targets) == wanted
    assert (ids[targets] >= FIRST).all()
    np.testing.assert_array_equal(labels(batch, batch.source)[0], ids[targets])
    assert list(ids) == list(single(length, frame="xlnet").ids)


def test_the_paper_predicts_85_of_512():
    batch = PermutedLM(PermutedLMConfig()).prepare(drawn(single(512, frame="xlnet")))
    assert len(batch.rows) == 85


def test_targets_come_in_spans():
    made = PermutedLM(PermutedLMConfig())
    alone = runs = total = 0
    hits = np.zeros(240)
    for _, targets, _ in documents_of(made.prepare(drawn(*[single(240, frame="xlnet")] * 400))):
        sizes = [len(run) for run in np.split(targets, np.flatnonzero(np.diff(targets) > 1) + 1)]
        alone, runs, total = alone + sizes.count(1), runs + len(sizes), total + len(targets)
        hits[targets] += 1
    # lengths are as 1 / n up to 5: mean 5 / (1 + 1/2 + ... + 1/5) = 2.19
    assert 1.9 < total / runs < 2.4
    assert 0.4 < alone / runs < 0.52
    halves = hits.reshape(2, 120).sum(1)
    assert 0.9 < halves[0] / halves[1] < 1.15


def test_any_order_is_as_likely(monkeypatch):
    monkeypatch.setattr(PermutedLM, "_targets", lambda self, count, stream: np.array([1, 4]))
    batch = PermutedLM(PermutedLMConfig()).prepare(drawn(*[single(8, frame="xlnet")] * 4800))
    seen = Counter()
    for ids, targets, hidden in documents_of(batch):
        _, _, plain = kinds_of(ids, targets)
        content = ~hidden | np.eye(len(ids), dtype=bool)
        seen[tuple(content[np.ix_(~plain, ~plain)].sum(1))] += 1
    assert set(seen) == set(itertools.permutations((1, 2, 3, 4)))
    assert likely(list(seen.values()))


def test_blocks_have_the_same_order(monkeypatch):
    monkeypatch.setattr(PermutedLM, "_targets", lambda self, count, stream: np.array([0, 1, 2, 4, 5, 6, 8, 9, 10]))
    batch = PermutedLM(PermutedLMConfig(perm_size=4)).prepare(drawn(*[single(12, frame="xlnet")] * 20))
    for _, _, hidden in documents_of(batch):
        blocks = [hidden[4 * i : 4 * i + 3, 4 * i : 4 * i + 3] for i in range(3)]
        assert (blocks[0] == blocks[1]).all()
        assert (blocks[0] == blocks[2]).all()


def test_a_sample_does_not_depend_on_the_others():
    samples = [single(n, frame="xlnet") for n in (12, 40, 25)]
    made = PermutedLM(PermutedLMConfig(backward=0.5))
    together = list(documents_of(made.prepare(drawn(*samples))))
    for one in drawn(*samples):
        ((ids, targets, hidden),) = documents_of(made.prepare([one]))
        same = [found for found in together if len(found[0]) == len(ids)]
        assert len(same) == 1
        for mine, theirs in zip((ids, targets, hidden), same[0], strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("form", ["tied", "untied"])
def test_loss_of_transformers(form, tmp_path):
    config = transformers.XLNetConfig(**XLNET, tie_word_embeddings=form == "tied")
    theirs = strong(config)
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert PermutedLMConfig().head(model) == model.config.head
    made = PermutedLMConfig().build(model, vocabulary(500, frame="xlnet"), max_tokens=64, seed=0)
    samples = single(60, frame="xlnet"), couple((9, 8), (12,), frame="xlnet"), row(17, 30, frame="xlnet")
    batch = made.prepare(drawn(*samples, single(1, frame="xlnet")))
    loss = made.loss(model, batch, phase="train")["lm"]
    segments = np.split(
        batch.source.layout.segments[: batch.num_tokens].numpy(), np.cumsum(batch.source.layout.lengths)[:-1]
    )
    assert any(s.any() for s in segments)
    expected, count = torch.zeros(()), 0
    for (ids, targets, hidden), segment in zip(documents_of(batch), segments, strict=True):
        if len(targets):
            asked = theirs(
                input_ids=torch.tensor(ids)[None],
                token_type_ids=torch.tensor(segment)[None],
                perm_mask=torch.tensor(hidden)[None].float(),
                target_mapping=torch.eye(len(ids))[targets][None],
                labels=torch.tensor(ids[targets])[None],
            )
            expected, count = expected + asked.loss * len(targets), count + len(targets)
    assert made.targets(batch) == {"lm": count}
    assert_equal(loss, expected.detach())
    loss.backward()
    expected.backward()
    table = theirs.transformer.word_embedding.weight.grad
    torch.testing.assert_close(model.trunk.embeddings.tokens.weight.grad, table, rtol=0, atol=1e-4 * table.abs().max())


def test_backward_is_bi_data_of_transformers(tmp_path):
    theirs = strong(transformers.XLNetConfig(**XLNET))
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    theirs.transformer.bi_data = True  # the second half of a batch: its text reversed, its distances negated
    made = PermutedLM(PermutedLMConfig(backward=1.0))
    batch = made.prepare(drawn(single(30, frame="xlnet")))
    loss = made.loss(model, batch, phase="train")["lm"]
    ((ids, targets, hidden),) = documents_of(batch)
    assert ids[0] < FIRST
    assert ids[1] == BETWEEN
    turned = ids[::-1].copy()
    assert list(turned) == list(single(30, frame="xlnet").ids)
    mapping = torch.eye(len(ids))[targets].flip(1)
    asked = theirs(
        input_ids=torch.tensor(turned).expand(2, -1),
        perm_mask=torch.tensor(hidden).flip(0, 1).float().expand(2, -1, -1),
        target_mapping=mapping.expand(2, -1, -1),
    )
    want = torch.tensor(ids[targets])
    forward, back = (torch.nn.functional.cross_entropy(x, want, reduction="sum") for x in asked.logits)
    assert_equal(loss.detach(), back.detach())
    assert abs(forward - back) > 1e-3


def test_errors_of_the_user():
    with pytest.raises(SettingError, match="^objective: permuted_lm needs a model with a query stream, which custom"):
        PermutedLMConfig().head(toy("encoder", "transformer_xl"))
    with pytest.raises(SettingError, match="permuted_lm trains an encoder"):
        PermutedLMConfig().head(toy("decoder", "none"))
    assert PermutedLMConfig().head(toy("encoder", "transformer_xl", query_stream="learned")) is not None

"""Scores of texts: tokens that span the join of prefix and continuation, prefixes that are shared or are not."""

import json

import pytest
import torch

import tunesmith as ts
from tunesmith.base.errors import CheckpointError, DataError

JOINS = [
    ("the fi", ["lm was", "re", "lms and film"]),  # "film" is one token: it spans the join
    ("the film ", ["was", "story"]),  # the space belongs to the next word
    ("the film", [" was fine", " was", ", was", "s"]),
    ("", ["the film", "plot"]),
    ("naïve ☃", ["☃ plot", "é"]),
]


@pytest.fixture(scope="module")
def llama(speakers):
    return ts.load(str(speakers["llama"]))


def by_hand(model, prefix, continuation):
    """Log-probabilities from whole forwards, tokens told apart by the offsets of the whole text."""
    encoding = model.tokenizer.backend.encode(prefix + continuation)
    ids = encoding.ids
    first = next(i for i, (_, end) in enumerate(encoding.offsets) if end > len(prefix))
    if first == 0:
        ids, first = [0, *ids], 1
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [logits[i - 1, ids[i]].item() for i in range(first, len(ids))]


def test_joins_are_tokenised_as_one_text(llama):
    spanning = llama.tokenizer.backend.encode("the film").tokens
    assert spanning == ["the", "Ġfilm"], "the case must be what it says"
    for (prefix, continuations), row in zip(JOINS, ts.score(llama, JOINS), strict=True):
        for continuation, found in zip(continuations, row, strict=True):
            wanted = by_hand(llama, prefix, continuation)
            assert found.token_log_probs == pytest.approx(wanted, abs=1e-4), (prefix, continuation)
            assert found.log_prob == pytest.approx(sum(wanted), abs=1e-4)


def test_a_token_over_the_join_belongs_to_the_continuation(llama):
    (whole, apart), (rest,) = ts.score(llama, [("the fi", ["lm", "x"]), ("the", [" film"])])
    assert len(whole.token_ids) == 1
    assert whole.log_prob == pytest.approx(rest.log_prob, abs=1e-5), "its own prefix is 'the'"
    assert whole.token_ids == rest.token_ids != apart.token_ids


def test_batches_change_nothing(llama):
    items = JOINS * 4
    whole, cut = ts.score(llama, items), ts.score(llama, items, max_tokens=1)
    for one, other in zip(whole, cut, strict=True):
        assert [x.log_prob for x in one] == pytest.approx([x.log_prob for x in other], abs=1e-4)
        assert [x.token_ids for x in one] == [x.token_ids for x in other]


def test_an_encoder_decoder_is_asked_for_the_whole_answer(speakers):
    model = ts.load(str(speakers["bart"]))
    items = [("the film was", ["fine", "a story of it"]), ("song", ["plot"])]
    for (prefix, continuations), row in zip(items, ts.score(model, items), strict=True):
        for continuation, found in zip(continuations, row, strict=True):
            source, target = (model.tokenizer.backend.encode(text).ids for text in (prefix, continuation))
            assert (target[0], target[-1]) == (0, 2)
            with torch.no_grad():
                read = torch.tensor([[2, *target[:-1]]])
                logits = model(torch.tensor([source]), decoder_input_ids=read).logits[0].log_softmax(-1)
            assert found.log_prob == pytest.approx(logits[range(len(target)), target].sum().item(), abs=1e-4)


def test_a_bare_decoder_scores_with_its_own_table(speakers):
    (row,) = ts.score(ts.load(str(speakers["bare"])), [("the film", [" was"])])
    assert row[0].log_prob < 0


def test_what_cannot_be_scored_is_refused(llama, checkpoints, tmp_path):
    with pytest.raises(DataError, match=r"item 2 continuation 1: has no token of its own"):
        ts.score(llama, [("the", ["a"]), ("the", [""])])
    with pytest.raises(DataError, match=r"item 1 continuation 2: has \d+ tokens, but the model has 66 positions"):
        ts.score(llama, [("the", ["a", "x" * 100])])
    with pytest.raises(CheckpointError, match="bert cannot generate: it has no decoder with an lm head"):
        ts.score(ts.load(str(checkpoints["bert"])), [("the", ["a"])])
    assert ts.score(llama, []) == []
    assert ts.score(llama, [("the", [])]) == [[]]
    assert json.dumps(ts.score(llama, [("the", ["a"])])[0][0].token_ids)

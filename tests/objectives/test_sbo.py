"""SpanBERT: which tokens the boundaries are asked for, and the formula."""

import numpy as np
import torch
import torch.nn.functional as F
from corpora import FRAMES, corpus, drawn, keyed, vocabulary

from tunesmith.objectives.sbo import SBOConfig
from tunesmith.text.inputs.blocks import BlocksConfig
from tunesmith.text.inputs.doc_sentences import DocSentencesConfig
from tunesmith.text.inputs.packed import PackedConfig


def samples(kind=DocSentencesConfig, *, frame="bert", max_tokens=40):
    found = kind().samples(corpus(), FRAMES[frame], max_tokens=max_tokens, stream=keyed())
    return [found[i] for i in range(len(found))]


def asked_by_hand(batch, most):
    """(row, left row, right row, place in the span) of each token that the boundaries are asked for."""
    layout, chosen, found = batch.source.layout, set(batch.rows.tolist()), []
    for start, length in zip(layout.starts.tolist(), layout.lengths, strict=True):
        place = start
        while place < start + length:
            end = place
            while end in chosen and end < start + length:
                end += 1
            if end > place and place > start and end < start + length:
                found += [(row, place - 1, end, row - place) for row in range(place, min(end, place + most))]
            place = max(end, place + 1)
    return found


def check(batch, most):
    expected = asked_by_hand(batch, most)
    wanted, more = batch.more["wanted"], batch.more
    masked = dict(zip(batch.rows.tolist(), batch.labels.tolist(), strict=True))
    assert wanted[more["left"]].tolist() == [left for _, left, _, _ in expected]
    assert wanted[more["right"]].tolist() == [right for _, _, right, _ in expected]
    assert more["offsets"].tolist() == [offset for *_, offset in expected]
    assert more["labels"].tolist() == [masked[row] for row, *_ in expected]
    assert wanted[more["lm"]].tolist() == batch.rows.tolist()
    return expected


def test_targets(encoder):
    for rate, most in ((0.15, 20), (0.6, 3)):
        objective = SBOConfig(rate=rate, max_targets=most).build(encoder(), vocabulary(), max_tokens=40, seed=0)
        for kind, frame in ((DocSentencesConfig, "bert"), (PackedConfig, "bert"), (PackedConfig, "gpt2")):
            batch = objective.prepare(drawn(samples(kind, frame=frame)))
            expected = check(batch, most)
            targets = objective.targets(batch)
            assert targets == {"lm": len(batch.rows), "sbo": len(expected)}
            assert 0 < targets["sbo"] <= targets["lm"]
            short = frame == "gpt2" or rate == 0.6
            assert (targets["sbo"] < targets["lm"]) == short


def test_spans_of_neighbouring_documents_are_two(encoder):
    """Blocks have no special tokens around them: a span may end where the next document begins with one."""
    objective = SBOConfig(rate=0.5).build(encoder(), vocabulary(), max_tokens=12, seed=0)
    batch = objective.prepare(drawn(samples(BlocksConfig, max_tokens=12)))
    rows, starts = set(batch.rows.tolist()), batch.source.layout.starts.tolist()
    assert any({start - 1, start} <= rows for start in starts)
    check(batch, 20)


def test_formula(encoder):
    model = encoder()
    objective = SBOConfig(d_position=6).build(model, vocabulary(), max_tokens=40, seed=0)
    boundary = objective.networks["boundary"].double()
    with torch.no_grad():
        for parameter in boundary.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    batch = objective.prepare(drawn(samples()[:6]))
    hidden = model.encoder(batch.source.token_ids, batch.source.layout)
    table = model.encoder.embeddings.tokens.weight
    total = 0.0
    labels = dict(zip(batch.rows.tolist(), batch.labels.tolist(), strict=True))
    for row, left, right, offset in asked_by_hand(batch, 20):
        h0 = torch.cat([hidden[left], hidden[right], boundary.positions.weight[offset]])
        x = h0
        for dense, norm in ((boundary.inner, boundary.inner_norm), (boundary.outer, boundary.outer_norm)):
            x = F.gelu(dense.weight @ x + dense.bias)
            x = F.layer_norm(x, x.shape, norm.weight, norm.bias, norm.eps)
        total = total - (table @ x).log_softmax(0)[labels[row]]
    found = objective.loss(model, batch, phase="train")
    torch.testing.assert_close(found["sbo"], total)
    plain = F.cross_entropy(model.head(hidden[batch.rows], None), batch.labels, reduction="sum")
    torch.testing.assert_close(found["lm"], plain)
    found["sbo"].backward()
    assert boundary.positions.weight.grad.abs().sum() > 0
    assert table.grad.abs().sum() > 0


def test_fresh_weights_follow_the_seed(encoder):
    def weights(seed):
        boundary = SBOConfig().build(encoder(), vocabulary(), max_tokens=40, seed=seed).networks["boundary"]
        return torch.cat([parameter.flatten() for parameter in boundary.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    boundary = SBOConfig().build(encoder(), vocabulary(), max_tokens=40, seed=1).networks["boundary"]
    assert boundary.positions.weight.shape == (20, 200)
    assert abs(boundary.positions.weight.std().item() - 0.02) < 0.001
    assert np.isclose(SBOConfig(weight=0.5).build(encoder(), vocabulary(), max_tokens=40, seed=1).weight, 0.5)

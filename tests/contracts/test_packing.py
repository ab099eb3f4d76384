"""Packing is a proof: packed documents have the losses and gradients they have alone, and never see each other."""

import pytest
import torch
from toys import KINDS, POSITIONS, WORDS, toy, words

from tunesmith.base import choices
from tunesmith.base.layout import make_layout

LENGTHS = (3, 1, 7, 16, 7, 33, 2)
HEADS = {
    "choice": {},
    "classify": {"num_labels": 3, "hidden": "tanh"},
    "lm": {},
    "pool": {},
    "pretrain": {},
    "rtd": {},
    "span": {},
    "tag": {"num_labels": 3},
}


def test_every_head_is_here():
    assert list(HEADS) == choices.names("head")


def loss_of(model, ids, layout, weights):
    """A loss that weighs every output of every document, whatever it is packed with."""
    found = model.logits(ids, layout)
    counts = [len(found) // len(layout.lengths)] * len(layout.lengths)
    if model.head.reads == "all":
        counts = list(layout.lengths)
    parts = found.split(counts)
    total = sum(
        (part * weight[: len(part)]).sum() + part.square().sum() for part, weight in zip(parts, weights, strict=True)
    )
    pair = model.head.pair_logits(model.hidden(ids, layout, rows=layout.starts), None)
    return total if pair is None else total + pair.square().sum()


def both_ways(model):
    """Packed and one by one: loss and gradients of each."""
    stream = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    width = model.logits(words(2), make_layout([2])).shape[-1]
    weights = [torch.randn(length, width, generator=stream, dtype=torch.float64).to(dtype) for length in LENGTHS]
    ids, segments = words(*LENGTHS), words(*LENGTHS, seed=2) % 2
    found = []
    for groups in ([range(len(LENGTHS))], [[i] for i in range(len(LENGTHS))]):
        model.zero_grad()
        total = torch.zeros((), dtype=dtype)
        for group in groups:
            lengths = [LENGTHS[i] for i in group]
            rows = torch.cat([torch.arange(sum(LENGTHS[:i]), sum(LENGTHS[: i + 1])) for i in group])
            layout = make_layout(lengths, segments=segments[rows])
            loss = loss_of(model, ids[rows], layout, [weights[i] for i in group])
            loss.backward()
            total += loss.detach()
        found.append((total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    return found


CASES = [(kind, position, "lm") for kind in KINDS for position in POSITIONS]
CASES += [(kind, position, head) for head in HEADS if head != "lm" for kind in KINDS for position in POSITIONS]


def head_of(name):
    fields = {"table": "own"} if name in ("lm", "pretrain") else {}
    return choices.choose("head", {"name": name, **HEADS[name], **fields})


@pytest.mark.parametrize(("kind", "position", "head"), CASES)
def test_packed_is_one_by_one(kind, position, head):
    model = toy(
        kind, position, head=head_of(head), d_model=32, d_embedding=32, d_ff=24
    )  # sums of many terms: fp32 is close
    (packed, gradients), (alone, references) = both_ways(model)
    torch.testing.assert_close(packed, alone, rtol=1e-10, atol=1e-10)
    assert gradients.keys() == references.keys()
    for name, reference in references.items():
        limit = 1e-10 * max(1.0, reference.abs().max().item())
        torch.testing.assert_close(
            gradients[name], reference, rtol=0, atol=limit, msg=lambda text, n=name: f"{n}: {text}"
        )
    exact = references
    (packed, gradients), (alone, references) = both_ways(model.float())
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    sizes = {name: reference.abs().max().item() for name, reference in exact.items()}
    for name, reference in references.items():
        # zero in exact arithmetic (a key's bias, a query that sees one key): what is left of it is rounding; and where
        # terms cancel, one document at a time is itself further from the exact gradient than 1e-5 of its maximum
        size = sizes[name] if sizes[name] > 1e-9 * max(sizes.values()) else max(sizes.values())
        limit = max(1e-5 * size, 5 * (reference - exact[name]).abs().max().item())
        torch.testing.assert_close(
            gradients[name], reference, rtol=0, atol=limit, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_document_never_changes_another(kind, position):
    model = toy(kind, position).float()
    layout = make_layout(LENGTHS)
    ids = words(*LENGTHS)
    before = model.logits(ids, layout).split(LENGTHS)
    for changed in range(len(LENGTHS)):
        others = [x.clone() for x in ids.split(LENGTHS)]
        others[changed] = (others[changed] + 1) % WORDS
        after = model.logits(torch.cat(others), layout).split(LENGTHS)
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            assert torch.equal(old, new) == (i != changed), (changed, i)

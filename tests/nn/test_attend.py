"""Attention against a plain softmax over each document, in float64: values, gradients, dropout, isolation."""

import pytest
import torch

from tunesmith.base.layout import Reach, make_layout
from tunesmith.nn.attend import attend, attend_packed

HEADS, WIDTH = 3, 12
SCALE = 0.37
LENGTHS = {
    "one": [1],
    "equal": [5, 5, 5],
    "unequal": [1, 2, 2, 7, 9],
    "not sorted": [9, 1, 30, 4],
    "full blocks": [16, 16, 16, 16],
    "several groups": [*[3] * 40, *[150] * 5, 290],
}


def inputs(lengths, *, spare=0, seed=0):
    stream = torch.Generator().manual_seed(seed)
    rows = sum(lengths) + spare
    return [torch.randn(rows, WIDTH, generator=stream, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def plain(query, key, value, lengths, *, factors=None):
    """softmax(scale Q K^T) V of each document by itself; ``factors`` multiply the weights of each."""
    found = []
    for number, parts in enumerate(zip(*(x[: sum(lengths)].split(lengths) for x in (query, key, value)), strict=True)):
        q, k, v = (part.view(len(part), HEADS, -1).transpose(0, 1) for part in parts)
        weights = torch.softmax(SCALE * q @ k.transpose(1, 2), -1)
        weights = weights if factors is None else weights * factors[number]
        found.append((weights @ v).transpose(0, 1).reshape(-1, WIDTH))
    return torch.cat(found)


def ours(query, key, value, layout, dropout=0.0):
    return attend(query, key, value, layout, num_heads=HEADS, scale=SCALE, dropout=dropout)


@pytest.mark.parametrize("spare", [0, 5])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_values_and_gradients(lengths, spare):
    x = inputs(lengths, spare=spare)
    layout = make_layout(lengths, spare=spare)
    got, want = ours(*x, layout), plain(*x, lengths)
    torch.testing.assert_close(got[: sum(lengths)], want, rtol=0, atol=1e-10)
    assert (got[sum(lengths) :] == 0).all()
    direction = torch.randn(got.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(got, x, direction)  # of the spare rows too: nothing may come of them
    wanted = torch.autograd.grad(want, x, direction[: sum(lengths)])
    for gradient, reference in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=0, atol=1e-10)


def test_the_cases_have_all_kinds_of_groups():
    """Several groups; bins full of one document, with one document and padding, and with several documents."""
    groups = [make_layout(lengths).groups for lengths in LENGTHS.values()]
    assert max(len(found) for found in groups) >= 3
    shapes = {None if group.bias is None else group.bias.shape[1] == 1 for found in groups for group in found}
    assert shapes == {None, True, False}


@pytest.mark.parametrize("lengths", [[4, 4], [1, 3, 6]])
def test_gradcheck(lengths):
    layout = make_layout(lengths)
    assert torch.autograd.gradcheck(lambda *x: ours(*x, layout), inputs(lengths), fast_mode=True)


@pytest.mark.parametrize("lengths", [[4, 4], [1, 3, 6]])
def test_gradcheck_with_dropout(lengths):
    def run(*x):
        noise = torch.Generator().manual_seed(5)
        return ours(*x, make_layout(lengths, noise=noise), dropout=0.3)

    assert torch.autograd.gradcheck(run, inputs(lengths), fast_mode=True)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_some_gradients_alone(wanted):
    """Frozen projections ask for fewer; those that are asked for stay the same."""
    lengths = [1, 3, 6]
    x = inputs(lengths)
    full = torch.autograd.grad(ours(*x, make_layout(lengths)).square().sum(), x)
    few = [tensor.detach().requires_grad_(i in wanted) for i, tensor in enumerate(x)]
    ours(*few, make_layout(lengths)).square().sum().backward()
    for i, tensor in enumerate(few):
        assert (tensor.grad is not None) == (i in wanted)
        if i in wanted:
            assert torch.equal(tensor.grad, full[i])


def test_dropout_is_repeatable_and_right_on_average():
    lengths = [2, 5, 5]
    x = [tensor.detach() for tensor in inputs(lengths)]

    def draw(seed):
        return ours(*x, make_layout(lengths, noise=torch.Generator().manual_seed(seed)), dropout=0.25)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    draws = torch.stack([draw(seed) for seed in range(3000)])
    error = 5 * draws.std(0).max().item() / 3000**0.5
    torch.testing.assert_close(draws.mean(0), plain(*x, lengths), rtol=0, atol=error)


def test_dropout_falls_on_weights():
    """With values that count, each result tells which of the two weights fell."""
    query = key = torch.zeros(2, HEADS)
    value = torch.tensor([[1.0] * HEADS, [3.0] * HEADS])  # weights 1/2 and 1/2
    seen = set()
    for seed in range(60):
        layout = make_layout([2], noise=torch.Generator().manual_seed(seed))
        result = attend(query, key, value, layout, num_heads=HEADS, scale=1.0, dropout=0.5)
        seen |= {round(number, 4) for number in result.flatten().tolist()}
    assert seen == {0.0, 1.0, 3.0, 4.0}  # scaled by 2


def test_no_noise_no_dropout():
    lengths = [2, 5]
    x = inputs(lengths)
    assert torch.equal(ours(*x, make_layout(lengths), dropout=0.5), ours(*x, make_layout(lengths)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changed", [0, 1, 2, 4])
@pytest.mark.parametrize(
    "lengths", [[3, 5, 5, 7, 8], [20, 20, 20, 20, 40]], ids=["shared bins", "some bins of their own"]
)
def test_documents_never_touch(lengths, changed, dtype):
    """Other numbers in one document leave all others as they were, bit for bit, forwards and backwards."""
    for value in (100.0, -1e6, 0.0):
        assert_isolated(lengths, changed, dtype, value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("lengths", "changed"), [([32, 32, 32], 0), ([32, 32, 32], 1)])
def test_what_is_no_number_stays_in_a_bin_that_is_full_of_one_document(lengths, changed, value):
    """Not so in groups with padding: 0 * NaN is NaN, so documents there share NaN and infinity with their group."""
    assert_isolated(lengths, changed, torch.float32, value)


def assert_isolated(lengths, changed, dtype, value):
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    place = slice(ends[changed] - lengths[changed], ends[changed])
    others = [i for i in range(sum(lengths)) if not place.start <= i < place.stop]
    layout = make_layout(lengths)
    clean = [x.detach().to(dtype).requires_grad_() for x in inputs(lengths)]
    expected = ours(*clean, layout)
    wanted = torch.autograd.grad(expected.square().sum(), clean)
    other = [x.detach().clone() for x in clean]
    for tensor in other:
        tensor[place] = value
        tensor.requires_grad_()
    got = ours(*other, layout)
    assert not torch.equal(got[place], expected[place])
    assert torch.equal(got[others], expected[others])
    for gradient, reference in zip(torch.autograd.grad(got.square().sum(), other), wanted, strict=True):
        assert torch.equal(gradient[others], reference[others])


def test_bf16_is_close():
    lengths = [1, 3, 6, 20]
    x = inputs(lengths)
    got = ours(*(tensor.bfloat16() for tensor in x), make_layout(lengths))
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), ours(*x, make_layout(lengths)), rtol=0, atol=0.03)  # bf16 has 8 bits


@pytest.mark.parametrize("lengths", [[16, 16, 16], [3, 7, 16]], ids=["full", "padded"])
def test_causal_by_torch(lengths, monkeypatch):
    """Bins full of one document need no mask: torch's kernel is told that they are causal."""
    x, layout = inputs(lengths), make_layout(lengths)
    causal = Reach(None, 0)
    own = attend(*x, layout, num_heads=HEADS, scale=SCALE, reach=causal)
    gradients = torch.autograd.grad(own.square().sum(), x)
    again = make_layout(lengths)
    monkeypatch.setattr("tunesmith.nn.attend.takes_sdpa", lambda *args, **settings: True)
    got = attend(*x, again, num_heads=HEADS, scale=SCALE, reach=causal)
    torch.testing.assert_close(got, own, rtol=0, atol=1e-10)
    for gradient, reference in zip(torch.autograd.grad(got.square().sum(), x), gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=0, atol=1e-10)
    masks = [group.bias is not None or bool(group._biases) for group in again.groups]
    assert any(masks) == (lengths[0] != 16)


@pytest.mark.parametrize("by_torch", [True, False])
def test_packed_is_the_same(by_torch, monkeypatch):
    lengths = [3, 7, 16]
    x = inputs(lengths)
    wanted = plain(*x, lengths)
    monkeypatch.setattr("tunesmith.nn.attend.takes_sdpa", lambda *args, **settings: by_torch)
    got = attend_packed(torch.cat(x, 1), make_layout(lengths), num_heads=HEADS, scale=SCALE)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)

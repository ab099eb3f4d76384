"""Dropout from random bytes: the rate at every place of a word, expectation, keyed streams, gradients."""

import pytest
import torch

from tunesmith.nn.dropout import draw, dropout, dropout_add


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 1 / 256])
def test_each_byte_of_a_word_falls_at_the_rate(rate):
    count = 1_000_000
    dropped = draw(torch.Size([count]), rate, stream())
    exact = round(rate * 256) / 256
    bound = 5 * (exact * (1 - exact) / (count / 8)) ** 0.5  # five standard deviations
    for byte in range(8):
        assert abs(dropped.mask[byte::8].double().mean().item() - exact) < bound, byte
    assert dropped.scale == pytest.approx(1 / (1 - exact))


def test_neighbours_fall_independently():
    mask = draw(torch.Size([1_000_000]), 0.5, stream()).mask.double() - 0.5
    for lag in (1, 2, 7, 8, 9, 64):
        assert abs((mask[lag:] * mask[:-lag]).mean().item() * 4) < 5e-3


def test_the_top_bit_is_random_too():
    """A rate of 128/256 reads only the top bit of each byte; of the eighth it is the sign bit of the word."""
    mask = draw(torch.Size([80_000]), 0.5, stream()).mask
    assert 0.48 < mask[7::8].double().mean() < 0.52


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (3, 5), (2, 3, 4), (0,)])
def test_any_shape(shape):
    assert draw(torch.Size(shape), 0.3, stream()).mask.shape == shape


def test_off():
    x = torch.randn(4, 4)
    assert draw(x.shape, 0.5, None) is None
    assert draw(x.shape, 0.0, stream()) is None
    assert draw(x.shape, 0.001, stream()) is None  # rounds to 0/256
    assert dropout(x, 0.5, None) is x
    assert torch.equal(dropout_add(x, x, 0.5, None), x + x)


def test_expectation_and_scale():
    x = torch.full((1_000_000,), 3.0)
    found = dropout(x, 0.1, stream())
    assert abs(found.double().mean().item() - 3) < 0.01
    assert {round(value, 4) for value in found.unique().tolist()} == {0.0, round(3 * 256 / 230, 4)}


def test_the_stream_is_all_that_counts():
    x = torch.randn(50, 8)
    assert torch.equal(dropout(x, 0.4, stream(1)), dropout(x, 0.4, stream(1)))
    assert not torch.equal(dropout(x, 0.4, stream(1)), dropout(x, 0.4, stream(2)))
    one = stream(1)
    assert not torch.equal(dropout(x, 0.4, one), dropout(x, 0.4, one))
    torch.manual_seed(0)
    first = dropout(x, 0.4, stream(1))
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.4, stream(1)), first)


def test_what_falls_leaves_no_trace():
    x = torch.tensor([float("nan"), float("inf")] * 500)
    mask = draw(x.shape, 0.5, stream()).mask
    assert (dropout(x, 0.5, stream())[mask] == 0).all()
    assert (dropout_add(x, torch.ones(1000), 0.5, stream())[mask] == 1).all()


def test_dropout_add_is_dropout_and_add():
    x, residual = (torch.randn(6, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    direction = torch.randn(6, 5, dtype=torch.float64)
    results = [dropout_add(x, residual, 0.4, stream()), residual + dropout(x, 0.4, stream())]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)
    ours, plain = (torch.autograd.grad(result, (x, residual), direction) for result in results)
    for got, want in zip(ours, plain, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: dropout_add(a, b, 0.4, stream()), (x, residual))

"""Dropout from random bytes: the rate at every place of a word, expectation, keyed streams, gradients."""

import pytest
import torch

from tunesmith.nn.dropout import draw, dropout, dropout_add


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def factors(count, rate, *, seed=0, dtype=torch.float32):
    return draw(torch.Size([count]), rate, stream(seed), dtype)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 1 / 256, 255 / 256])
def test_each_byte_of_a_word_falls_at_the_rate(rate):
    count = 1_000_000
    found = factors(count, rate)
    exact = round(rate * 256) / 256
    bound = 5 * (exact * (1 - exact) / (count / 8)) ** 0.5  # five standard deviations
    for byte in range(8):
        assert abs((found[byte::8] == 0).double().mean().item() - exact) < bound, byte
    assert sorted(found.unique().tolist()) == pytest.approx([0.0, 1 / (1 - exact)])


def test_neighbours_fall_independently():
    fell = (factors(1_000_000, 0.5) == 0).double() - 0.5
    for lag in (1, 2, 7, 8, 9, 64):
        assert abs((fell[lag:] * fell[:-lag]).mean().item() * 4) < 5e-3


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (3, 5), (2, 3, 4), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_shape_and_type(shape, dtype):
    found = draw(torch.Size(shape), 0.3, stream(), dtype)
    assert found.shape == shape
    assert found.dtype == dtype


def test_off():
    x = torch.randn(4, 4)
    assert draw(x.shape, 0.5, None, x.dtype) is None
    assert draw(x.shape, 0.0, stream(), x.dtype) is None
    assert draw(x.shape, 0.001, stream(), x.dtype) is None  # rounds to 0/256
    assert dropout(x, 0.5, None) is x
    assert torch.equal(dropout_add(x, x, 0.5, None), x + x)


def test_something_is_always_kept():
    """0.999 rounds to 256/256, which would keep nothing and scale it by infinity."""
    found = factors(100_000, 0.999)
    assert torch.isfinite(found).all()
    assert (found != 0).any()


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


def test_the_same_values_fall_in_every_type():
    wide, narrow = (factors(10_000, 0.3, dtype=dtype) == 0 for dtype in (torch.float32, torch.bfloat16))
    assert torch.equal(wide, narrow)


def test_dropout_add_is_dropout_and_add():
    x, residual = (torch.randn(6, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    direction = torch.randn(6, 5, dtype=torch.float64)
    results = [dropout_add(x, residual, 0.4, stream()), residual + dropout(x, 0.4, stream())]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)
    ours, plain = (torch.autograd.grad(result, (x, residual), direction) for result in results)
    for got, want in zip(ours, plain, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: dropout_add(a, b, 0.4, stream()), (x, residual))

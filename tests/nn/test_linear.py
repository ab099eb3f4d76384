"""Linear maps: the fused product against exact arithmetic, several maps by one product."""

import pytest
import torch

from tunesmith.nn.linear import Linear, side_by_side

ROWS, WIDTH = 40, 24


def maps(*widths, bias=True, dtype=torch.float64):
    torch.manual_seed(0)
    return [Linear(WIDTH, width, bias=bias, dtype=dtype) for width in widths]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(ROWS, WIDTH), (2, 5, WIDTH), (0, WIDTH), (1, WIDTH)])
def test_bf16_is_exact_but_for_its_rounding(shape, bias):
    (one,) = maps(7, bias=bias, dtype=torch.float32)
    x = torch.randn(shape).bfloat16().requires_grad_()
    direction = torch.randn(*shape[:-1], 7).bfloat16()
    got = one(x)
    assert got.dtype == torch.bfloat16
    grads = torch.autograd.grad(got, [x, *one.parameters()], direction)

    exact = [p.detach().bfloat16().double().requires_grad_() for p in (x, *one.parameters())]
    wanted = torch.nn.functional.linear(*exact)
    wanted_grads = torch.autograd.grad(wanted, exact, direction.double())
    torch.testing.assert_close(got.double(), wanted, rtol=2**-8, atol=2**-10)
    for mine, theirs, parameter in zip(grads, wanted_grads, (x, *one.parameters()), strict=True):
        assert mine.dtype == parameter.dtype
        scale = max(theirs.abs().max().item() if theirs.numel() else 0.0, 1e-9)
        torch.testing.assert_close(mine.double(), theirs, rtol=2**-8, atol=2**-8 * scale)


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient(frozen):
    (one,) = maps(7, dtype=torch.float32)
    x = torch.randn(ROWS, WIDTH).bfloat16().requires_grad_(frozen != "x")
    one.weight.requires_grad_(frozen != "weight")
    assert one.bias is not None
    one.bias.requires_grad_(frozen != "bias")
    one(x).float().sum().backward()
    for name, tensor in (("x", x), ("weight", one.weight), ("bias", one.bias)):
        assert (tensor.grad is None) == (name == frozen), name


@pytest.mark.parametrize("bias", [True, False])
def test_side_by_side_is_each_map(bias):
    several = maps(24, 8, 16, bias=bias)
    x = torch.randn(ROWS, WIDTH, dtype=torch.float64, requires_grad=True)
    inputs = [x, *(p for one in several for p in one.parameters())]
    direction = torch.randn(ROWS, 48, dtype=torch.float64)
    got = side_by_side(several, x)
    wanted = torch.cat([one(x) for one in several], 1)
    assert got is not None
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(got, inputs, direction), torch.autograd.grad(wanted, inputs, direction), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_side_by_side_leaves_to_each_map_what_is_not_plain():
    class Adapted(Linear):
        pass

    x = torch.randn(ROWS, WIDTH, dtype=torch.float64)
    plain = maps(8, 8)
    assert side_by_side(plain, x) is not None
    assert side_by_side([plain[0], Adapted(WIDTH, 8, dtype=torch.float64)], x) is None
    assert side_by_side([plain[0], Linear(WIDTH, 8, bias=False, dtype=torch.float64)], x) is None
    assert side_by_side(plain, x[: WIDTH - 1]) is None  # few rows: the copy of the weights costs more
    handle = plain[1].register_forward_hook(lambda module, inputs, output: None)
    assert side_by_side(plain, x) is None
    handle.remove()
    assert side_by_side(plain, x) is not None

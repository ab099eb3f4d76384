"""The loss of an output layer without its logits: against torch, gradients too, at the edges of chunks."""

import pytest
import torch
import torch.nn.functional as F

from tunesmith.nn import cross_entropy
from tunesmith.nn.cross_entropy import linear_cross_entropy


def case(rows, *, width=5, classes=7, dtype=torch.float64, bias=True, seed=0):
    stream = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=stream, dtype=torch.float64).to(dtype).requires_grad_()

    labels = torch.randint(classes, (rows,), generator=stream)
    return normal(rows, width), normal(classes, width), normal(classes) if bias else None, labels


def plain(x, weight, bias, labels):
    return F.cross_entropy(F.linear(x, weight, bias), labels, reduction="sum")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 4, 9])
def test_gradcheck(monkeypatch, rows, bias):
    monkeypatch.setattr(cross_entropy, "CHUNK", 28)  # 4 rows of 7 classes
    x, weight, b, labels = case(rows, bias=bias)
    assert torch.autograd.gradcheck(lambda *of: 3 * linear_cross_entropy(*of, labels), (x, weight, b))


@pytest.mark.parametrize("chunk", [1, 7, 28, 63, 1 << 24])
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("bias", [True, False])
def test_as_torch_whatever_the_chunk(monkeypatch, chunk, rows, bias):
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    found, expected = case(rows, bias=bias), case(rows, bias=bias)
    ours, theirs = linear_cross_entropy(*found), plain(*expected)
    torch.testing.assert_close(ours, theirs)
    (2.5 * ours).backward()
    (2.5 * theirs).backward()
    for a, b in zip(found[:3], expected[:3], strict=True):
        assert a is b is None or torch.allclose(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_in_single_precision():
    found, expected = case(300, width=32, classes=1000, dtype=torch.float32), case(300, width=32, classes=1000)
    ours, theirs = linear_cross_entropy(*found), plain(*expected)
    assert ours.dtype == torch.float32
    assert abs(ours.item() - theirs.item()) <= 1e-6 * theirs.item()
    ours.backward()
    theirs.backward()
    for a, b in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=0, atol=1e-5 * max(1.0, b.grad.abs().max().item()))


def test_rows_in_bf16_and_weights_in_fp32():
    """Products are rounded to bf16, sums are not: the gradient of the weights is fp32."""
    x, weight, bias, labels = case(64, width=16, classes=40, dtype=torch.float32)
    narrow = x.detach().bfloat16().requires_grad_()
    ours = linear_cross_entropy(narrow, weight, bias, labels)
    assert ours.dtype == torch.float32
    ours.backward()
    assert narrow.grad.dtype == torch.bfloat16
    assert weight.grad.dtype == bias.grad.dtype == torch.float32
    wide = [part.detach().double().requires_grad_() for part in (narrow, weight, bias)]
    theirs = plain(*wide, labels)
    theirs.backward()
    assert abs(ours.item() - theirs.item()) < 0.01 * theirs.item()
    for a, b in zip((narrow, weight, bias), wide, strict=True):
        error = (a.grad.double() - b.grad).norm() / b.grad.norm()
        assert error < 0.02  # bf16 has 8 bits


def test_only_what_is_wanted_gets_a_gradient():
    for wanted in range(8):
        *tensors, labels = case(5)
        for i, tensor in enumerate(tensors):
            tensor.requires_grad_(bool(wanted >> i & 1))
        loss = linear_cross_entropy(*tensors, labels)
        assert loss.requires_grad == bool(wanted)
        if wanted:
            loss.backward()
        assert [tensor.grad is not None for tensor in tensors] == [bool(wanted >> i & 1) for i in range(3)]
    with torch.no_grad():
        assert not linear_cross_entropy(*case(5)).requires_grad


def test_large_logits_neither_overflow_nor_vanish():
    x, weight, bias, labels = case(4)
    with torch.no_grad():
        x.mul_(1e4)
    ours = linear_cross_entropy(x, weight, bias, labels)
    ours.backward()
    assert torch.isfinite(ours)
    assert torch.isfinite(x.grad).all()
    torch.testing.assert_close(ours.detach(), plain(x, weight, bias, labels).detach())


@pytest.mark.parametrize("chunk", [7, 14, 28, 1 << 24])
def test_rows_behind_the_last_label_are_spare(monkeypatch, chunk):
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    found, expected = case(9), case(9)
    ours = linear_cross_entropy(*found[:3], found[3][:5])
    theirs = plain(expected[0][:5], *expected[1:3], expected[3][:5])
    torch.testing.assert_close(ours, theirs)
    (2.5 * ours).backward()
    (2.5 * theirs).backward()
    for a, b in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(a.grad, b.grad)

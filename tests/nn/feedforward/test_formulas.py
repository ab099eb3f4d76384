"""Every feed-forward layer against its formula, written out."""

import math

import pytest
import torch

from tunesmith.base import choices
from tunesmith.nn.feedforward import equal_width


def sigmoid(x):
    return 1 / (1 + (-x).exp())


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def relu(x):
    return torch.where(x > 0, x, 0)


PLAIN = {
    "relu": ("relu", relu),
    "gelu": ("gelu", gelu),
    "gelu, tanh": ({"name": "gelu", "approximate": "tanh"}, gelu_tanh),
    "swish": ("swish", lambda x: x * sigmoid(x)),
}
GATED = {
    "bilinear": ("bilinear", lambda x: x),
    "glu": ("glu", sigmoid),
    "reglu": ("reglu", relu),
    "geglu": ("geglu", gelu),
    "geglu, tanh": ({"name": "geglu", "approximate": "tanh"}, gelu_tanh),
    "swiglu": ("swiglu", lambda x: x * sigmoid(x)),
}
BIAS = pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])


def make(choice, *, d_model=6, d_ff=10, **fields):
    stream = torch.Generator().manual_seed(0)
    layer = choices.choose("feedforward", choice).build(d_model=d_model, d_ff=d_ff, **fields).double()
    for parameter in layer.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    return layer, torch.randn(7, d_model, generator=stream, dtype=torch.float64)


def affine(x, linear):
    y = x @ linear.weight.T
    return y if linear.bias is None else y + linear.bias


@BIAS
@pytest.mark.parametrize(("choice", "activation"), PLAIN.values(), ids=PLAIN)
def test_two_maps(choice, activation, bias):
    layer, x = make(choice, bias=bias)
    assert (layer.up.bias is not None) == bias
    torch.testing.assert_close(layer(x), affine(activation(affine(x, layer.up)), layer.down))


@BIAS
@pytest.mark.parametrize(("choice", "activation"), GATED.values(), ids=GATED)
def test_gate_times_up(choice, activation, bias):
    layer, x = make(choice, bias=bias)
    inner = activation(affine(x, layer.gate)) * affine(x, layer.up)
    torch.testing.assert_close(layer(x), affine(inner, layer.down))


def test_these_are_all():
    assert {name.partition(",")[0] for name in (*PLAIN, *GATED)} == set(choices.names("feedforward"))


@pytest.mark.parametrize("name", choices.names("feedforward"))
def test_dropout_of_the_inner_activations(name):
    layer, x = make(name, dropout=0.5)
    assert torch.equal(layer(x), layer(x))
    first, again, other = (layer(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def weights(name, d_model, d_ff):
    layer = choices.choose("feedforward", name).build(d_model=d_model, d_ff=d_ff, bias=False)
    return sum(parameter.numel() for parameter in layer.parameters())


@pytest.mark.parametrize("d_ff", [3072, 2048, 1000, 96, 5])
def test_equal_width_gives_as_many_weights(d_ff):
    width = equal_width(d_ff)
    plain, gated = weights("gelu", 8, d_ff), weights("geglu", 8, width)
    assert abs(gated - plain) <= 1.5 * 8  # half a row of the three maps
    assert width == {3072: 2048}.get(d_ff, width)


@pytest.mark.parametrize(("d_ff", "multiple", "width"), [(4 * 4096, 256, 11008), (4 * 5120, 256, 13824), (12, 64, 64)])
def test_equal_width_rounded_up_as_in_llama(d_ff, multiple, width):
    assert equal_width(d_ff, multiple_of=multiple) == width

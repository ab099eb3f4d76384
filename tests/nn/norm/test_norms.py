"""Both normalisations against torch's, and in bf16 against themselves in fp32."""

import pytest
import torch

from tunesmith.base import choices


def make(choice, *, dtype=torch.float64):
    stream = torch.Generator().manual_seed(0)
    norm = choices.choose("norm", choice).build(width=24)
    for parameter in norm.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=stream))
    x = (3 * torch.randn(7, 24, generator=stream, dtype=torch.float64) + 1).to(dtype)
    return norm.to(dtype), x


@pytest.mark.parametrize("eps", [1e-12, 1e-2])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm(bias, eps):
    norm, x = make({"name": "layer_norm", "eps": eps, "bias": bias})
    assert (norm.bias is not None) == bias
    want = torch.nn.functional.layer_norm(x, (24,), norm.weight, norm.bias, eps)
    torch.testing.assert_close(norm(x), want)
    away = x - x.mean(1, keepdim=True)
    plain = away / (away.square().mean(1, keepdim=True) + eps).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), plain + norm.bias if bias else plain)


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_rms_norm(eps):
    norm, x = make({"name": "rms_norm", "eps": eps})
    torch.testing.assert_close(norm(x), torch.nn.functional.rms_norm(x, (24,), norm.weight, eps))


@pytest.mark.parametrize("name", choices.names("norm"))
def test_fp32_weights_serve_a_bf16_stream(name):
    norm, x = make(name, dtype=torch.float32)
    narrow = norm(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), norm(x.bfloat16().float()), rtol=2e-2, atol=2e-2)

"""Dropout from random bytes: eight decisions for each 64-bit random number, from a keyed stream.

Paper: Dropout (Srivastava et al., JMLR 2014). Differs: the rate is rounded to 1/256 (0.1 becomes 26/256); kept values
are scaled by the inverse of the rounded rate, so that expectations are exact. On a CPU torch's own dropout costs as
much as four matrix products of the same activations; this costs a sixth of it (docs/benchmarks/attention.md). Bytes
become factors by integer arithmetic: comparisons, and what is made of their truth values, are far slower there. The
numbers are NumPy's SFC64 (C. Doty-Humphrey, PractRand), keyed by two of the stream: twice as fast as torch's own.
"""

import numpy as np
import torch

from tunesmith.base.shapes import Float, Tensor, UInt8


def draw_kept(
    shape: torch.Size, rate: float, noise: torch.Generator | None
) -> tuple[UInt8[Tensor, "..."], float] | None:
    """Which activations stay, 1 or 0 in a byte each, and the scale of what stays; None where dropout is off.

    Args:
        shape: Shape of the activations.
        rate: Probability that a value falls, in [0, 1); rounded to 1/256.
        noise: Stream to draw from; None switches dropout off.
    """
    threshold = min(255, round(rate * 256))
    if noise is None or threshold == 0:
        return None
    count = shape.numel()
    drawn = _bytes((count + 7) // 8, noise)[:count].view(shape)
    return drawn.clamp_(threshold - 1, threshold).sub_(threshold - 1), 256 / (256 - threshold)


def draw(
    shape: torch.Size, rate: float, noise: torch.Generator | None, dtype: torch.dtype
) -> Float[Tensor, "..."] | None:
    """Factors of dropout for activations of this shape: 0, or the scale of what is kept; None where dropout is off."""
    drawn = draw_kept(shape, rate, noise)
    return None if drawn is None else drawn[0].to(dtype).mul_(drawn[1])


def dropout(x: Float[Tensor, "..."], rate: float, noise: torch.Generator | None) -> Float[Tensor, "..."]:
    """Zero each value with probability ``rate`` and scale the others."""
    factors = draw(x.shape, rate, noise, x.dtype)
    return x if factors is None else x * factors


def dropout_add(
    x: Float[Tensor, "N D"], residual: Float[Tensor, "N D"], rate: float, noise: torch.Generator | None
) -> Float[Tensor, "N D"]:
    """``residual + dropout(x)`` in one pass."""
    drawn = draw_kept(x.shape, rate, noise)
    return x + residual if drawn is None else torch.addcmul(residual, x, drawn[0].to(x.dtype), value=drawn[1])


def _bytes(words: int, noise: torch.Generator) -> UInt8[Tensor, "8*W"]:
    """The bytes of random 64-bit numbers, all bits of them."""
    if noise.device.type != "cpu":
        drawn = torch.empty(words, dtype=torch.int64, device=noise.device)
        drawn.random_(-(2**63), None, generator=noise)  # by default the top bit would always be 0
        return drawn.view(torch.uint8)
    key = torch.empty(2, dtype=torch.int64).random_(generator=noise).tolist()
    return torch.from_numpy(np.random.SFC64(key).random_raw(words).view(np.uint8))

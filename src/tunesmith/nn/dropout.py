"""Dropout from random bytes: eight decisions for each 64-bit random number, drawn from a keyed stream.

Paper: Dropout (Srivastava et al., JMLR 2014). Differs: the rate is rounded to 1/256 (0.1 becomes 26/256); kept values
are scaled by the inverse of the rounded rate, so that expectations are exact. On a CPU torch's own dropout costs as
much as a matrix product of the same activations; this costs a quarter of that (docs/benchmarks/attention.md).
"""

from dataclasses import dataclass

import torch

from tunesmith.base.shapes import Bool, Float, Tensor


@dataclass(frozen=True)
class Dropped:
    """Which values fall, and the scale of those that stay."""

    mask: Bool[Tensor, "..."]
    scale: float


def draw(shape: torch.Size, rate: float, noise: torch.Generator | None) -> Dropped | None:
    """Decide which values of a tensor of this shape fall; None where dropout is off.

    Args:
        shape: Shape of the activations.
        rate: Probability that a value falls, in [0, 1); rounded to 1/256.
        noise: Stream to draw from; None switches dropout off.
    """
    threshold = round(rate * 256)
    if noise is None or threshold == 0:
        return None
    count = shape.numel()
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=noise.device)
    words.random_(-(2**63), None, generator=noise)  # the whole range: by default the top bit would always be 0
    mask = words.view(torch.uint8)[:count].view(shape) < threshold
    return Dropped(mask, 256 / (256 - threshold))


def dropout(x: Float[Tensor, "..."], rate: float, noise: torch.Generator | None) -> Float[Tensor, "..."]:
    """Zero each value with probability ``rate`` and scale the others."""
    dropped = draw(x.shape, rate, noise)
    return x if dropped is None else x.masked_fill(dropped.mask, 0) * dropped.scale


def dropout_add(
    x: Float[Tensor, "N D"], residual: Float[Tensor, "N D"], rate: float, noise: torch.Generator | None
) -> Float[Tensor, "N D"]:
    """``residual + dropout(x)`` in one pass."""
    dropped = draw(x.shape, rate, noise)
    return x + residual if dropped is None else _DropoutAdd.apply(x, residual, dropped)


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, dropped):  # noqa: D102
        ctx.dropped = dropped
        return torch.add(residual, x.masked_fill(dropped.mask, 0), alpha=dropped.scale)

    @staticmethod
    def backward(ctx, *grads):  # noqa: D102
        (grad,) = grads
        return grad.masked_fill(ctx.dropped.mask, 0).mul_(ctx.dropped.scale), grad, None

"""Cross-entropy of a linear output layer, without ever holding the logits of all rows or keeping any for backward.

sum_i logsumexp(x_i W^T + b) - (x_i W^T + b)[y_i]; its gradients are formed chunk by chunk in the forward pass, where
the probabilities are at hand: dx = (p - y) W, dW = (p - y)^T x.
"""

from typing import Any

import torch

from tunesmith.base.shapes import Float, Int, Tensor

CHUNK = 1 << 25
"""Logits held at a time."""
BLOCK = 1 << 20
"""Logits whose softmax is formed at a time on a CPU: they stay in its cache (measured: half the time). A GPU takes all
that are held: there each further block is a dozen launches more."""


def linear_cross_entropy(
    x: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"] | None,
    labels: Int[Tensor, "N"],
) -> Float[Tensor, ""]:
    """Sum of the losses of the rows, in nats; fp32, or float64 if x is.

    Products are computed in the type of x, sums over the vocabulary in the wider one.

    Args:
        x: Rows.
        weight: Output matrix, kept in any type.
        bias: Bias of the output.
        labels: Class of each row; rows behind the last label are spare.
    """
    return _apply(x, weight, bias, labels, None)[0]


def cross_entropy_and_samples(
    x: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"] | None,
    labels: Int[Tensor, "N"],
    draws: Float[Tensor, "N"],
) -> tuple[Float[Tensor, ""], Int[Tensor, "N"]]:
    """`linear_cross_entropy`, and a class drawn for each row from its probabilities; no gradient goes through that.

    Args:
        x: Rows.
        weight: Output matrix.
        bias: Bias of the output.
        labels: Class of each row; rows behind the last label are spare.
        draws: A number in [0, 1) for each label: the class is where the cumulated probabilities pass it.
    """
    return _apply(x, weight, bias, labels, draws)


def _apply(x: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, draws: Tensor | None) -> tuple[Any, Any]:
    if not torch.is_grad_enabled():  # else the gradients would be formed: inside, all that counts is requires_grad
        x, weight, bias = x.detach(), weight.detach(), None if bias is None else bias.detach()
    return _LinearCrossEntropy.apply(x, weight, bias, labels, draws)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, labels, draws):
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        narrow = weight.to(x.dtype)
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_x = torch.empty_like(x) if need_x else None
        grad_weight: Tensor | None = None
        grad_bias = None if bias is None or not need_bias else torch.zeros_like(bias, dtype=wide)
        total = torch.zeros((), dtype=wide, device=x.device)
        samples: list[Tensor] = []
        rows = max(1, CHUNK // len(weight))
        learns = need_x or need_weight or need_bias
        for start in range(0, len(x), rows):
            part = x[start : start + rows]
            logits = part @ narrow.t()
            block = max(1, (BLOCK if x.device.type == "cpu" else CHUNK) // len(weight))
            real = min(len(part), len(labels) - start)
            for first in range(0, real, block):
                here = slice(start + first, start + min(first + block, real))
                wanted = labels[here, None]
                some = logits[first : first + len(wanted)]
                # the bias is added here, where the cache holds them: a product that begins with it writes them twice
                logs = some.to(wide)
                logs = torch.log_softmax(logs if bias is None else logs.add_(bias), 1)
                total -= logs.gather(1, wanted).sum()
                if draws is None and not learns:
                    continue
                grad = logs.exp_()
                if draws is not None:
                    samples.append(_drawn(grad, draws[here]))
                if not learns:
                    continue
                grad.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=wide))
                if grad_bias is not None:
                    grad_bias += grad.sum(0)
                some.copy_(grad)  # in place of the logits
            logits[max(0, real) :].zero_()
            if grad_x is not None:
                torch.mm(logits, narrow, out=grad_x[start : start + rows])
            if need_weight:
                more = torch.mm(logits.t(), part)
                grad_weight = more if grad_weight is None else grad_weight.to(wide).add_(more)
        if need_weight and grad_weight is None:
            grad_weight = torch.zeros_like(weight, dtype=wide)
        ctx.save_for_backward(grad_x, grad_weight, grad_bias)
        ctx.dtypes = x.dtype, weight.dtype, None if bias is None else bias.dtype
        if draws is None:
            return total, None
        drawn = torch.cat(samples) if samples else torch.empty_like(labels)
        ctx.mark_non_differentiable(drawn)
        return total, drawn

    @staticmethod
    def backward(ctx, *grads):
        found = (
            None if part is None else _scaled(part, grads[0], dtype)
            for part, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return *found, None, None


def _scaled(part: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """``factor part`` in this type; a copy that is needed anyway is scaled in place: the table is a large tensor."""
    return part.mul(factor.to(dtype)) if part.dtype == dtype else part.to(dtype).mul_(factor.to(dtype))


def _drawn(probabilities: Float[Tensor, "M V"], draws: Float[Tensor, "M"]) -> Int[Tensor, "M"]:
    """Where the cumulated probabilities of each row pass its draw, measured by their own total."""
    cumulated = probabilities.cumsum(1)
    wanted = draws.to(cumulated.dtype)[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, wanted, right=True)[:, 0].clamp_(max=probabilities.shape[1] - 1)

"""Adafactor: Adam without the mean of gradients, its squares kept as a row and a column for each matrix.

R, C = means of g^2 + 1e-30 over columns and rows, decaying by beta2_t = 1 - t^-0.8; V = R C / mean(R);
u = g / sqrt(V); u = u / max(1, RMS(u) / clip); w = w - lr max(1e-3, RMS(w)) u

Paper: Adafactor (arXiv:1804.04235), algorithms 4 and 5. torch's own always caps the learning rate and always scales by
RMS(w), and adds epsilon elsewhere; T5 and its followers need both to be choices.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.train.optim import OptimiserConfig, decaying
from tunesmith.train.optim._fields import Epsilon
from tunesmith.train.optim._own import Own

ScaleBy = Literal["parameter", "none"]
Rate = Literal["given", "relative"]
TINY = 1e-30


class AdafactorConfig(OptimiserConfig):
    """Settings of Adafactor."""

    decay: float = pydantic.Field(
        default=0.8, gt=0, le=1, description="Exponent of the squares' decay: beta2 of step t is 1 - t^-decay."
    )
    clip: float = pydantic.Field(default=1.0, gt=0, description="Root mean square of an update, at most ($d$).")
    scale_by: ScaleBy = pydantic.Field(
        default="parameter", description="parameter: the learning rate is a share of each tensor's root mean square."
    )
    smallest_scale: Epsilon = pydantic.Field(
        default=1e-3, description="What that root mean square counts as at least ($epsilon_2$)."
    )
    rate: Rate = pydantic.Field(
        default="given",
        description="relative: 1 / sqrt(step), with the learning rate as its upper bound (paper: 0.01).",
    )

    def build(
        self, parameters: Mapping[str, torch.nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> "Adafactor":
        """The optimiser."""
        return Adafactor(
            decaying(parameters, weight_decay),
            learning_rate=learning_rate,
            decay=self.decay,
            clip=self.clip,
            scale_by=self.scale_by,
            smallest_scale=self.smallest_scale,
            rate=self.rate,
        )

    def state_numbers(self, name: str, parameter: Tensor) -> int:
        """A row and a column (of the last two dimensions), and the step."""
        if not _factored(parameter):
            return parameter.numel() + 1
        return parameter.numel() // parameter.shape[-1] + parameter.numel() // parameter.shape[-2] + 1


class Adafactor(Own):
    """The optimiser; a group's ``weight_decay`` is its own, apart from the gradient as in AdamW.

    Args:
        groups: Parameters, as torch's optimisers take them.
        learning_rate: At the peak.
        decay: Exponent of the squares' decay.
        clip: Root mean square of an update, at most.
        scale_by: Whether the learning rate is a share of each tensor's root mean square.
        smallest_scale: What that counts as at least.
        rate: given: the learning rate; relative: 1 / sqrt(step), bounded by it.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        learning_rate: float,
        decay: float,
        clip: float,
        scale_by: ScaleBy,
        smallest_scale: float,
        rate: Rate,
    ):
        own = {"decay": decay, "clip": clip, "scale_by": scale_by, "smallest_scale": smallest_scale, "rate": rate}
        super().__init__(groups, {"lr": learning_rate, "weight_decay": 0.0, **own})

    def update(self, group: dict[str, Any], parameters: Sequence[Tensor]) -> None:
        """Update the parameters of a group."""
        for parameter in parameters:
            assert parameter.grad is not None
            step = self.count(parameter)
            move = self._direction(parameter, parameter.grad, fresh=step ** -group["decay"])
            rate = min(group["lr"], step**-0.5) if group["rate"] == "relative" else group["lr"]
            factor = rate / (_rms(move) / group["clip"]).clamp_(min=1)
            if group["scale_by"] == "parameter":
                factor *= _rms(parameter).clamp_(min=group["smallest_scale"])
            if group["weight_decay"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.sub_(move.mul_(factor))

    def _direction(self, parameter: Tensor, grad: Tensor, *, fresh: float) -> Float[Tensor, "..."]:
        """G / sqrt(V), after V has taken the gradient in; ``fresh`` is 1 - beta2."""
        state = self.state[parameter]
        if not _factored(parameter):
            square = self.kept(parameter, "exp_avg_sq").lerp_(grad.square().add_(TINY), fresh)
            return square.rsqrt().mul_(grad)
        square = grad.square()
        for key, along in (("row", -1), ("column", -2)):
            mean = square.mean(along) + TINY  # not in place: over shards it is a sum yet to be made
            state[key] = state[key].lerp_(mean, fresh) if key in state else mean
        row, column = state["row"], state["column"]
        by_row = (row / row.mean(-1, keepdim=True)).rsqrt_().unsqueeze(-1)
        return torch.mul(grad, by_row, out=square).mul_(column.rsqrt().unsqueeze(-2))


def _factored(parameter: Tensor) -> bool:
    """Whether rows and columns are kept apart: of one row, R / mean(R) is 1 and V is C, as of a vector."""
    return parameter.ndim >= 2 and parameter.shape[-2] > 1  # and torch cannot broadcast into one row that is sharded


def _rms(x: Tensor) -> Float[Tensor, ""]:
    return torch.linalg.vector_norm(x) / math.sqrt(x.numel())

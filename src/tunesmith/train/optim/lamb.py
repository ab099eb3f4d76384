"""LAMB: Adam's direction, each matrix moving by a share of its own norm; made for very large batches.

u = m / (sqrt(v) + epsilon) + decay w; w = w - lr (|w| / |u|) u, with 1 for the ratio where either norm is 0.

Paper: Large Batch Optimization for Deep Learning (arXiv:1904.00962), algorithm 2. Differs: as in ALBERT's code there is
no bias correction unless asked for, no bound on |w|, and vectors (biases, norms) have neither decay nor ratio.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.train.optim import OptimiserConfig, decaying
from tunesmith.train.optim._fields import Beta, BiasCorrection, Epsilon
from tunesmith.train.optim._own import Own, pieces


class LAMBConfig(OptimiserConfig):
    """Settings of LAMB."""

    beta1: Beta = pydantic.Field(default=0.9, description="Decay of the mean of gradients.")
    beta2: Beta = pydantic.Field(default=0.999, description="Decay of the mean of their squares.")
    epsilon: Epsilon = pydantic.Field(default=1e-6, description="Added to the root of the squares.")
    bias_correction: BiasCorrection = pydantic.Field(
        default="off", description="Whether the means are corrected for their beginning at zero."
    )

    def build(
        self, parameters: Mapping[str, torch.nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> "LAMB":
        """The optimiser."""
        return LAMB(
            decaying(parameters, weight_decay),
            learning_rate=learning_rate,
            betas=(self.beta1, self.beta2),
            epsilon=self.epsilon,
            bias_correction=self.bias_correction,
        )

    def state_numbers(self, name: str, parameter: Tensor) -> int:
        """Two means and the step."""
        return 2 * parameter.numel() + 1


class LAMB(Own):
    """The optimiser; a group's ``weight_decay`` is its own.

    Args:
        groups: Parameters, as torch's optimisers take them.
        learning_rate: Share of its norm that a matrix moves by, at the peak.
        betas: Decays of the means of gradients and of their squares.
        epsilon: Added to the root of the squares.
        bias_correction: Whether the means are corrected for their beginning at zero.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
        bias_correction: BiasCorrection,
    ):
        own = {"betas": betas, "epsilon": epsilon, "bias_correction": bias_correction}
        # fused: torch then reloads the steps to the parameters' device
        super().__init__(groups, {"lr": learning_rate, "weight_decay": 0.0, "fused": True, **own})

    def update(self, group: dict[str, Any], parameters: Sequence[Tensor]) -> None:
        """Update the parameters of a group."""
        for parameter in parameters:
            step = self._step(parameter, group["bias_correction"])
            step += 1
            cut, norms = [], []
            assert parameter.grad is not None
            means = self.kept(parameter, "exp_avg"), self.kept(parameter, "exp_avg_sq")
            for weight, grad, mean, square in pieces(parameter, parameter.grad, *means):
                move = _move(weight, grad, mean, square, step, group)
                if parameter.ndim >= 2:  # here, as the cache still holds both
                    norms.append(torch.stack([torch.linalg.vector_norm(weight), torch.linalg.vector_norm(move)]))
                cut.append((weight, move))
            ratio = _ratio(norms) if norms else None
            for weight, move in cut:
                if ratio is not None:
                    weight.addcmul_(move, ratio, value=group["lr"])
                else:
                    weight.add_(move, alpha=group["lr"])

    def _step(self, parameter: Tensor, bias_correction: BiasCorrection) -> Float[Tensor, ""]:
        """The number of steps; infinite where nothing is to be corrected: beta^step is 0 then."""
        state = self.state[parameter]
        if "step" not in state:
            first = math.inf if bias_correction == "off" else 0.0
            state["step"] = torch.full((), first, dtype=torch.float32, device=parameter.device)
        return state["step"]


def _move(
    weight: Tensor, grad: Tensor, mean: Tensor, square: Tensor, step: Tensor, group: dict[str, Any]
) -> Float[Tensor, "..."]:
    """-u, after the means have taken the gradient in."""
    move = torch.zeros_like(weight)
    # torch's fused AdamW, with weights of zero and a rate of one, leaves minus Adam's direction in them
    torch.ops.aten._fused_adamw_(
        [move],
        [grad],
        [mean],
        [square],
        [],
        [step],
        lr=1.0,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=0.0,
        eps=group["epsilon"],
        amsgrad=False,
        maximize=False,
    )
    return move.add_(weight, alpha=-group["weight_decay"]) if group["weight_decay"] else move


def _ratio(norms: Sequence[Tensor]) -> Float[Tensor, ""]:
    """|w| / |u|, or 1, from the norms of both in each piece; on their device, so that no step waits for it."""
    weight, move = torch.linalg.vector_norm(torch.stack(list(norms)), dim=0)
    return torch.where((weight > 0) & (move > 0), weight / move, 1.0)

"""Muon: hidden matrices move by their orthogonalised momentum, all else by AdamW.

m = momentum m + (1 - momentum) g; w = w - lr s U, where U is (1 - momentum) g + momentum m with its singular values
brought near 1 by five steps of a quintic Newton-Schulz iteration.

Papers: Muon (kellerjordan.github.io/posts/muon, 2024); Muon is Scalable for LLM Training (arXiv:2502.16982) for the
scale that lets AdamW's learning rate and weight decay serve. torch's own takes matrices only, and computes in bf16.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic
import torch
from torch.optim.adamw import adamw

from tunesmith.base.shapes import Float, Tensor
from tunesmith.train.optim import OptimiserConfig
from tunesmith.train.optim._fields import Beta, Epsilon
from tunesmith.train.optim._own import Own
from tunesmith.train.precision import Precision, choose_machine

Scale = Literal["adamw", "shape"]
QUINTIC = (3.4445, -4.7750, 2.0315)
NUM_STEPS = 5
NOT_HIDDEN = {"embeddings", "tokens", "positions", "segments", "table", "head"}
"""Modules whose matrices are looked up by row or give the output: their gradients have few directions or huge ones."""


class MuonConfig(OptimiserConfig):
    """Settings of Muon."""

    momentum: Beta = pydantic.Field(default=0.95, description="Decay of the mean of hidden matrices' gradients.")
    scale: Scale = pydantic.Field(
        default="adamw",
        description="Length of a step: adamw: 0.2 sqrt(longer side), as AdamW's; shape: sqrt(rows / columns), from 1.",
    )
    ratio: float = pydantic.Field(
        default=1.0, gt=0, description="Learning rate of all else as a share of that of hidden matrices."
    )
    precision: Precision = pydantic.Field(
        default="auto", description="Type of the iteration: bf16 where the machine is faster with it, else fp32."
    )
    beta1: Beta = pydantic.Field(default=0.9, description="AdamW, of all else: decay of the mean of gradients.")
    beta2: Beta = pydantic.Field(default=0.95, description="AdamW: decay of the mean of their squares.")
    epsilon: Epsilon = pydantic.Field(default=1e-8, description="AdamW: added to the root of the squares.")

    def build(
        self, parameters: Mapping[str, torch.nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> "Muon":
        """The optimiser."""
        groups: list[dict[str, Any]] = []
        for name, parameter in parameters.items():
            kind = {"hidden": is_hidden(name, parameter), "weight_decay": weight_decay if parameter.ndim >= 2 else 0.0}
            if groups and kind.items() <= groups[-1].items():
                groups[-1]["params"].append(parameter)
            else:  # neighbours only, so that the numbering of the parameters is the mapping's
                groups.append({"params": [parameter], **kind})
        return Muon(
            groups,
            learning_rate=learning_rate,
            momentum=self.momentum,
            scale=self.scale,
            ratio=self.ratio,
            precision=self.precision,
            betas=(self.beta1, self.beta2),
            epsilon=self.epsilon,
        )

    def state_numbers(self, name: str, parameter: Tensor) -> int:
        """The momentum of a hidden matrix; two means and the step of all else."""
        return parameter.numel() if is_hidden(name, parameter) else 2 * parameter.numel() + 1


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is the matrix of a map between hidden states."""
    modules = name.split(".")
    return parameter.ndim == 2 and modules[-1] == "weight" and not NOT_HIDDEN & set(modules)


class Muon(Own):
    """The optimiser; a group says whether it is ``hidden``, and its ``weight_decay``.

    Args:
        groups: Parameters, as torch's optimisers take them.
        learning_rate: Of hidden matrices, at the peak.
        momentum: Decay of the mean of their gradients.
        scale: Length of a step.
        ratio: Learning rate of all else as a share of theirs.
        precision: Type of the iteration.
        betas: AdamW's decays.
        epsilon: AdamW's.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        learning_rate: float,
        momentum: float,
        scale: Scale,
        ratio: float,
        precision: Precision,
        betas: tuple[float, float],
        epsilon: float,
    ):
        own = {"momentum": momentum, "scale": scale, "ratio": ratio, "precision": precision}
        rest = {"betas": betas, "epsilon": epsilon, "fused": True}  # fused: torch then reloads steps to the device
        super().__init__(groups, {"lr": learning_rate, "weight_decay": 0.0, **own, **rest})

    def update(self, group: dict[str, Any], parameters: Sequence[Tensor]) -> None:
        """Update the parameters of a group."""
        if group["hidden"]:
            self._orthogonal(group, parameters)
        else:
            self._adamw(group, parameters)

    def _orthogonal(self, group: dict[str, Any], parameters: Sequence[Tensor]) -> None:
        device = parameters[0].device
        dtype = choose_machine(str(device), group["precision"]).dtype
        momentum = group["momentum"]
        for parameter in parameters:
            grad, mean = parameter.grad, self.kept(parameter, "momentum")
            assert grad is not None
            mean.lerp_(grad, 1 - momentum)
            wide = parameter.dtype == torch.float64
            move = orthogonalised(grad.lerp(mean, momentum), dtype=parameter.dtype if wide else dtype)
            rows, columns = parameter.shape
            length = 0.2 * max(rows, columns) ** 0.5 if group["scale"] == "adamw" else max(1.0, rows / columns) ** 0.5
            if group["weight_decay"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(move.to(parameter.dtype), alpha=-group["lr"] * length)

    def _adamw(self, group: dict[str, Any], parameters: Sequence[Tensor]) -> None:
        for parameter in parameters:
            if "step" not in self.state[parameter]:
                self.state[parameter]["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        adamw(
            list(parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [self.kept(parameter, "exp_avg") for parameter in parameters],
            [self.kept(parameter, "exp_avg_sq") for parameter in parameters],
            [],
            [self.state[parameter]["step"] for parameter in parameters],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"] * group["ratio"],
            weight_decay=group["weight_decay"],
            eps=group["epsilon"],
            maximize=False,
        )


def orthogonalised(x: Float[Tensor, "A B"], *, dtype: torch.dtype) -> Float[Tensor, "A B"]:
    """A matrix with the same singular vectors and singular values near 1 (0.7 to 1.2); zeros stay zeros.

    Args:
        x: The matrix.
        dtype: Type to compute in, and of the result.
    """
    a, b, c = QUINTIC
    tall = x.shape[0] > x.shape[1]
    y = (x / torch.linalg.vector_norm(x).clamp(min=1e-7)).to(dtype)
    y = y.mT if tall else y  # the smaller of the two products with itself
    for _ in range(NUM_STEPS):
        gram = y @ y.mT
        y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.mT if tall else y

"""The L2 regularisation path of a linear model on fixed features: all strengths, each from the last one's solution.

Minimised is, over W (C, D) and an unpenalised bias b,

    (1 / N) sum_n loss(W x_n + b, y_n) + (strength / 2) |W|^2

on features that are centred and divided by one global scale (Paper: LP-FT, arXiv:2202.10054, appendix; its code
normalises so). Ridge regression has a closed form. The logistic losses are convex with a Hessian below X^T X / (4 N)
(Böhning, 1992), so L-BFGS runs in the eigenbasis of X^T X, scaled by that bound: a few passes a strength.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.optimize
import torch

from tunesmith.base.shapes import Float, Int, Tensor

Loss = Literal["softmax", "sigmoid", "squared"]


@dataclass(frozen=True)
class Point:
    """One solution of the path, in terms of the features as given.

    Attributes:
        strength: Of the penalty.
        weight: (C, D).
        bias: (C,).
    """

    strength: float
    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, "C"]

    def logits(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """The linear model's outputs."""
        return features @ self.weight.t() + self.bias


def strengths(count: int = 30, *, strongest: float = 1e2, weakest: float = 1e-6) -> list[float]:
    """Strengths of the path, strongest first, evenly spaced in the logarithm."""
    return [float(value) for value in np.logspace(np.log10(strongest), np.log10(weakest), count)]


def path(
    features: Float[Tensor, "N D"],
    targets: Int[Tensor, "N"] | Float[Tensor, "N"] | Float[Tensor, "N C"],
    *,
    loss: Loss,
    num_outputs: int,
    values: list[float],
) -> Iterator[Point]:
    """Solutions for each strength, in the order given (strongest first is fastest).

    Args:
        features: Of the training examples, fp32.
        targets: Classes for ``softmax``; 0/1 columns for ``sigmoid``; numbers, (N,) or (N, C), for ``squared``.
        loss: Softmax cross-entropy, mean binary cross-entropy over the columns, or half the squared error.
        num_outputs: Classes or columns, C.
        values: Strengths.
    """
    problem = _Problem(features, targets, loss=loss, num_outputs=num_outputs)
    solve = problem.ridge if loss == "squared" else problem.logistic
    for strength in values:
        yield solve(strength)


class _Problem:
    """The centred features in the eigenbasis of their covariance, and the last solution found."""

    def __init__(self, features: Tensor, targets: Tensor, *, loss: Loss, num_outputs: int):
        self.mean = features.mean(0)
        centred = features - self.mean
        self.scale = float(centred.square().mean().sqrt()) or 1.0
        centred /= self.scale
        covariance = (centred.t() @ centred).double() / len(features)
        eigenvalues, self.basis = torch.linalg.eigh(covariance)
        self.eigenvalues = eigenvalues.clamp_min(0)
        self.x = centred @ self.basis.float()  # (N, D): uncorrelated columns
        self.loss: Loss = loss
        self.num_outputs = num_outputs
        if loss == "softmax":
            self.y = torch.nn.functional.one_hot(targets.long(), num_outputs).float()
        else:
            self.y = targets.float().view(len(features), num_outputs)
        self.bias_start = self._first_bias()
        self.solution = torch.zeros(num_outputs, features.shape[1], dtype=torch.float64)
        self.bias = self.bias_start.clone()

    def _first_bias(self) -> Tensor:
        share = self.y.double().mean(0)
        if self.loss == "squared":
            return share
        share = share.clamp(1e-6, 1 - 1e-6)
        return share.log() if self.loss == "softmax" else (share / (1 - share)).log()

    def ridge(self, strength: float) -> Point:
        """W = (X^T X / N + strength)^-1 X^T y / N."""
        moments = ((self.y - self.y.mean(0)).t() @ self.x).double() / len(self.x)
        self.solution = moments / (self.eigenvalues + strength)
        return self._point(strength)

    def logistic(self, strength: float) -> Point:
        """L-BFGS from the last solution, preconditioned by the bound on the Hessian."""
        bound = (0.5 if self.loss == "softmax" else 0.25 / self.num_outputs) * self.eigenvalues + strength
        stretch = bound.rsqrt()  # (D,): the problem is well-conditioned in solution / stretch
        pull = 1.0 if self.loss == "softmax" else self.num_outputs**0.5 * 2.0
        size = self.solution.numel()

        def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
            scaled = torch.from_numpy(flat)
            weight = scaled[:size].view_as(self.solution) * stretch
            bias = scaled[size:] * pull
            logits = self.x @ weight.float().t() + bias.float()
            value, residual = _loss_and_residual(logits, self.y, self.loss)
            gradient = (residual.t() @ self.x).double() / len(self.x) + strength * weight
            bias_gradient = residual.double().mean(0)
            value += 0.5 * strength * float(weight.square().sum())
            return value, torch.cat([(gradient * stretch).flatten(), bias_gradient * pull]).numpy()

        start = torch.cat([(self.solution / stretch).flatten(), self.bias / pull]).numpy()
        options = {"maxiter": 100, "ftol": 1e-7, "gtol": 1e-5, "maxcor": 10}
        result = scipy.optimize.minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
        found = torch.from_numpy(np.asarray(result.x))
        self.solution = found[:size].view_as(self.solution) * stretch
        self.bias = found[size:] * pull
        return self._point(strength)

    def _point(self, strength: float) -> Point:
        """The solution in terms of the features as given."""
        weight = (self.solution @ self.basis.t()) / self.scale
        bias = self.bias - weight @ self.mean.double()
        return Point(strength, weight.float(), bias.float())


def _loss_and_residual(logits: Tensor, y: Tensor, loss: Loss) -> tuple[float, Tensor]:
    """Mean loss and its gradient with respect to the logits, times N."""
    if loss == "softmax":
        logs = logits.log_softmax(-1)
        return -float((logs * y).sum(-1).mean(dtype=torch.float64)), logs.exp_().sub_(y)
    columns = logits.shape[1]
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(-1) / columns
    return float(losses.mean(dtype=torch.float64)), (logits.sigmoid() - y) / columns


def best_point(
    points: Iterator[Point], score: Callable[[Point], float]
) -> tuple[Point, float, list[tuple[float, float]]]:
    """The point of the best score (the strongest of equals), its score, and all (strength, score) pairs."""
    best: tuple[Point, float] | None = None
    seen = []
    for point in points:
        value = score(point)
        seen.append((point.strength, value))
        if best is None or value > best[1]:
            best = point, value
    assert best is not None
    return *best, seen

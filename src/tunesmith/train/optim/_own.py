"""What the optimisers share that torch does not have: a step over all parameters with a gradient, and cutting them."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tunesmith.base.shapes import Float, Tensor

CHUNK = 1 << 17
"""Numbers that a CPU works on at a time, so that they are still in its cache when the next operation reads them."""


class Own(torch.optim.Optimizer, abc.ABC):
    """A step is `update` of each group's parameters that have a gradient; the others stay as they are."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters; gives the loss of the closure, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moving:
                self.update(group, moving)
        return loss

    @abc.abstractmethod
    def update(self, group: dict[str, Any], parameters: Sequence[Tensor]) -> None:
        """Update the parameters of a group, all of which have a gradient."""

    def count(self, parameter: Tensor) -> int:
        """Count a step of the parameter; gives its number, from 1."""
        state = self.state[parameter]
        if "step" not in state:
            state["step"] = torch.zeros(())
        state["step"] += 1
        return int(state["step"].item())

    def kept(self, parameter: Tensor, key: str) -> Float[Tensor, "..."]:
        """A tensor of the parameter's state, in its shape; zeros at first."""
        state = self.state[parameter]
        if key not in state:
            state[key] = torch.zeros_like(parameter)
        return state[key]


def pieces(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Tensors of one shape, cut alike: on a CPU into views that fit its cache, elsewhere not at all."""
    first, *others = tensors
    # torch's fused steps read memory as it lies, and a gradient may lie otherwise than its parameter
    others = [x if x.stride() == first.stride() else torch.empty_like(first).copy_(x) for x in others]
    if first.device.type != "cpu" or first.numel() <= CHUNK or not first.is_contiguous():
        return [(first, *others)]
    return list(zip(*(x.view(-1).split(CHUNK) for x in (first, *others)), strict=True))

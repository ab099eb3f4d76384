"""Activations between the two maps of a head."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F

from tunesmith.base.shapes import Tensor

Activation = Literal["tanh", "gelu", "gelu_tanh", "relu", "swish"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "swish": F.silu,
}

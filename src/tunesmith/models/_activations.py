"""Activations by their names in config.json: feed-forward layers of two maps, gated ones, and those of heads."""

from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.feedforward.geglu import GEGLUConfig
from tunesmith.nn.feedforward.gelu import GELUConfig
from tunesmith.nn.feedforward.glu import GLUConfig
from tunesmith.nn.feedforward.reglu import ReGLUConfig
from tunesmith.nn.feedforward.relu import ReLUConfig
from tunesmith.nn.feedforward.swiglu import SwiGLUConfig
from tunesmith.nn.feedforward.swish import SwishConfig
from tunesmith.nn.head._activation import Activation

PLAIN: dict[str, FeedForwardConfig] = {
    "gelu": GELUConfig(),
    "gelu_new": GELUConfig(approximate="tanh"),
    "gelu_pytorch_tanh": GELUConfig(approximate="tanh"),
    "gelu_fast": GELUConfig(approximate="tanh"),
    "relu": ReLUConfig(),
    "silu": SwishConfig(),
    "swish": SwishConfig(),
}
"""Feed-forward layers of two maps by the name of their activation."""

GATED: dict[str, FeedForwardConfig] = {
    "silu": SwiGLUConfig(),
    "swish": SwiGLUConfig(),
    "gelu": GEGLUConfig(),
    "gelu_new": GEGLUConfig(approximate="tanh"),
    "gelu_pytorch_tanh": GEGLUConfig(approximate="tanh"),
    "relu": ReGLUConfig(),
    "sigmoid": GLUConfig(),
}
"""Gated ones."""

ACTIVATION: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "swish",
    "swish": "swish",
    "tanh": "tanh",
}
"""Those between the maps of a head."""


def name_of(choice: FeedForwardConfig, table: dict[str, FeedForwardConfig]) -> str:
    """The first name that stands for a choice."""
    return next(name for name, other in table.items() if other == choice)

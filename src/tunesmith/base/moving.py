"""Tensors inside dataclasses, tuples and mappings, brought to a device without waiting for it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def moved(tree: T, device: torch.device) -> T:
    """The same tree on the device; what was cached in a dataclass, such as the groups of a layout, goes along.

    To a GPU by pinned memory: the copies queue behind its work, and nothing waits for them here.

    Args:
        tree: Tensors, and dataclasses, tuples and mappings that hold some; anything else stays as it is.
        device: Where to.
    """
    return _moved(tree, device, {})


def _moved(tree: Any, device: torch.device, done: dict[int, Any]) -> Any:
    if id(tree) in done:  # what was one object stays one
        return done[id(tree)]
    if isinstance(tree, torch.Tensor):
        found = tree.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tree.to(device)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        found = object.__new__(type(tree))
        found.__dict__.update({name: _moved(value, device, done) for name, value in vars(tree).items()})
    elif isinstance(tree, tuple):
        found = tuple(_moved(value, device, done) for value in tree)
    elif isinstance(tree, Mapping):
        found = {key: _moved(value, device, done) for key, value in tree.items()}
    else:
        return tree
    done[id(tree)] = found
    return found

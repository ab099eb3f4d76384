"""Put a checkpoint's tensors into a model, or say exactly which one does not fit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Tensor
from tunesmith.models._keys import foreign_name
from tunesmith.nn.init import init_normal
from tunesmith.nn.transformer import TransformerConfig

if TYPE_CHECKING:
    from tunesmith.models.model import Model


def fill(
    model: "Model", tensors: Mapping[str, Tensor], *, part: Literal["stacks", "head"], strict: bool, seed: int
) -> None:
    """Copy tensors under foreign names into one part of a model; what is left over becomes ``model.aside``.

    Args:
        model: The model.
        tensors: Tensors by foreign name, ``@`` for the base prefix.
        part: Which part to fill.
        strict: Whether a missing tensor or a wrong shape is an error; else the parameter is fresh.
        seed: Seed of fresh weights.

    Raises:
        CheckpointError: A tensor is missing, has the wrong shape, or holds what cannot be a weight.
    """
    roots = {"head": model.head} if part == "head" else {"encoder": model.encoder, "decoder": model.decoder}
    head = model.config.head.choice_name() if model.config.head else None
    used = set()
    fresh = []
    known: set[int] = set()  # a table that both stacks share is filled once
    for stack, root in roots.items():
        for path, parameter in () if root is None else stored(root).items():
            if id(parameter) in known:
                continue
            known.add(id(parameter))
            name = f"{stack}.{path}"
            foreign = foreign_name(name, model.family, head)
            tensor = tensors.get(foreign)
            where = f"{model.source} {foreign.replace('@', '')}"
            if tensor is not None and tensor.shape == parameter.shape:
                _check(tensor, where)
                with torch.no_grad():
                    parameter.copy_(tensor)
                used.add(foreign)
            elif not strict:
                fresh.append(name)
            elif tensor is None:
                raise CheckpointError(f"{where}: the weights hold no such tensor, but config.json asks for it")
            else:
                shapes = f"{list(tensor.shape)}, but config.json asks for {list(parameter.shape)}"
                raise CheckpointError(f"{where}: has shape {shapes}")
    for stack, root in roots.items():
        names = [name.partition(".")[2] for name in fresh if name.startswith(stack + ".")]
        if root is not None and names:
            _make_fresh(root, names, model.config.trunk, seed=seed, part=stack)
    model.fresh = (*model.fresh, *fresh)
    model.aside = {name: tensor for name, tensor in tensors.items() if name not in used}


def stored(module: torch.nn.Module) -> dict[str, Tensor]:
    """What a file holds of a module: its parameters and its lasting buffers, shared ones once."""
    lasting = module.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in module.named_buffers() if name in lasting}
    return dict(module.named_parameters()) | buffers


def _check(tensor: Tensor, where: str) -> None:
    if not tensor.is_floating_point():
        raise CheckpointError(f"{where}: holds {tensor.dtype}, not floating-point weights")
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{where}: holds NaN or infinite weights")


def _make_fresh(root: torch.nn.Module, names: list[str], trunk: TransformerConfig, *, seed: int, part: str) -> None:
    kept = {name: p.detach().clone() for name, p in root.named_parameters() if name not in names}
    init_normal(root, std=trunk.initial_std, residual_std=trunk.residual_std, seed=seed, name=part)
    with torch.no_grad():
        for name, parameter in root.named_parameters():
            if name in kept:
                parameter.copy_(kept[name])

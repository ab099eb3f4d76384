"""Put a checkpoint's tensors into a model, or say exactly which one does not fit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Tensor
from tunesmith.models._keys import foreign_name, our_name
from tunesmith.nn.init import init_normal
from tunesmith.nn.transformer import TransformerConfig

if TYPE_CHECKING:
    from tunesmith.models.model import Model, ModelConfig


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
    roots = _roots(model, part)
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
            where = f"{model.source} {_shown(foreign)}"
            if tensor is not None and tensor.shape == parameter.shape:
                _check(tensor, where)
                with torch.no_grad():
                    parameter.copy_(tensor)
                used.add(foreign)
            elif not strict:
                fresh.append(name)
            else:
                raise _misfit(where, tensor, parameter)
    for stack, root in roots.items():
        names = [name.partition(".")[2] for name in fresh if name.startswith(stack + ".")]
        if root is not None and names:
            _make_fresh(root, names, model, seed=seed, part=stack)
    model.fresh = (*model.fresh, *fresh)
    model.aside = {name: tensor for name, tensor in tensors.items() if name not in used}


def check_fits(model: "Model", tensors: Mapping[str, Tensor]) -> None:
    """See that a file has what a model needs, before any memory is taken for it: the model may be on the meta device.

    Args:
        model: An empty model.
        tensors: Tensors by foreign name, ``@`` for the base prefix.

    Raises:
        CheckpointError: A tensor is missing, has the wrong shape, or is of a block that the model has not.
    """
    head = model.config.head.choice_name() if model.config.head else None
    table = model.family  # made anew at each look
    shared: set[int] = set()
    for part in ("stacks", "head"):
        for stack, root in _roots(model, part).items():
            for path, parameter in () if root is None else stored(root).items():
                if id(parameter) in shared:
                    continue
                shared.add(id(parameter))
                foreign = foreign_name(f"{stack}.{path}", table, head)
                tensor = tensors.get(foreign)
                if tensor is None or tensor.shape != parameter.shape:
                    raise _misfit(f"{model.source} {_shown(foreign)}", tensor, parameter)
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for foreign in tensors:
        name = our_name(foreign, table, None) or ""
        stack, _, rest = name.partition(".")
        if rest.startswith("blocks.") and name not in known and _roots(model, "stacks").get(stack) is not None:
            raise CheckpointError(
                f"{model.source} {_shown(foreign)}: the weights hold it, but config.json has no place for it"
            )


def check_count(config: "ModelConfig", tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse more blocks than there are tensors: even their empty frames would take minutes and gigabytes.

    Raises:
        CheckpointError: A stack has more.
    """
    for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        if stack is not None and stack.stored > len(tensors):
            field = _field_of_layers(config.foreign, stack, name)
            raise CheckpointError(
                f"{source} config.json {field}: asks for {stack.stored} layers, but the weights are only "
                f"{len(tensors)} tensors"
            )


def _field_of_layers(foreign: Mapping[str, object], stack: TransformerConfig, name: str) -> str:
    found = [key for key, value in foreign.items() if value in (stack.stored, stack.num_layers) and "layer" in key]
    return next((key for key in found if key.startswith(name)), found[0] if found else "num_layers")


def _roots(model: "Model", part: str) -> dict[str, torch.nn.Module | None]:
    return {"head": model.head} if part == "head" else {"encoder": model.encoder, "decoder": model.decoder}


def _shown(foreign: str) -> str:
    """A tensor's name for the user: ``h.0.attn.c_attn.weight (query)`` for a part of a fused one."""
    base, mark, rest = foreign.replace("@", "").partition("#")
    part, dot, tail = rest.partition(".")
    return f"{base}{dot}{tail} ({part})" if mark else base


def _misfit(where: str, tensor: Tensor | None, parameter: Tensor) -> CheckpointError:
    if tensor is None:
        return CheckpointError(f"{where}: the weights hold no such tensor, but config.json asks for it")
    shapes = f"{list(tensor.shape)}, but config.json asks for {list(parameter.shape)}"
    return CheckpointError(f"{where}: has shape {shapes}")


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


def _make_fresh(root: torch.nn.Module, names: list[str], model: "Model", *, seed: int, part: str) -> None:
    kept = {name: p.detach().clone() for name, p in root.named_parameters() if name not in names}
    init_normal(
        root,
        std=model.config.trunk.initial_std,
        seed=seed,
        name=part,
        stds=model.family.fresh_stds(model.config.stacks),
    )
    with torch.no_grad():
        for name, parameter in root.named_parameters():
            if name in kept:
                parameter.copy_(kept[name])

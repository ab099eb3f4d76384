"""LoRA from and to PEFT adapter folders.

``adapter_config.json`` holds only keys that PEFT has known since 0.3, and others only where they are set: older
versions stop at a key they do not know. Maps that transformers keeps as one matrix (GPT-2's ``c_attn``) are adapted
there as one: what is written for them gives equal logits at the sum of the ranks (`_fused`).
"""

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import load_tensors, read_json, save_tensors, tensor_metadata, write_json
from tunesmith.base.shapes import Tensor
from tunesmith.models import Family, Fused
from tunesmith.models._keys import foreign_name, normalise, our_name, split_fused, with_prefix
from tunesmith.models.model import Model
from tunesmith.nn.linear import Linear
from tunesmith.surgery.sites import linear_sites
from tunesmith.tuning._fused import RANKS, Pair, fused_of, is_turned, ranks_in, stack, unstack, whole_and_part
from tunesmith.tuning.lora import AttachedLoRA, LoRALinear

_PREFIX = "base_model.model."
_COPY = ".original_module."  # the base model's own head, which bias="all" saves beside the trained one
_UNDERSTOOD = {  # keys that are read, or that change nothing once an adapter is trained; all others make variants
    *(
        "peft_type",
        "peft_version",
        "task_type",
        "auto_mapping",
        "inference_mode",
        "base_model_name_or_path",
        "revision",
    ),
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern", "bias", "fan_in_fan_out"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("init_lora_weights", "eva_config", "megatron_config", "megatron_core", "qalora_group_size", "runtime_config"),
}
_TASK_TYPES = {"classify": "SEQ_CLS", "tag": "TOKEN_CLS"}


@dataclass(frozen=True)
class Adapter:
    """What a PEFT folder of a LoRA adapter holds.

    Attributes:
        base: Folder or hub id of the base model.
        task: PEFT's ``task_type``.
        config: adapter_config.json.
        tensors: Tensors by their name in transformers, ``.lora_A.weight`` and the like at the end.
        ranks: Ranks of the parts of fused maps, by name there, where we wrote the adapter.
    """

    base: str
    task: str | None
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    ranks: Mapping[str, Mapping[str, int]]


def save_peft(folder: Path, attached: AttachedLoRA, *, base: str) -> None:
    """Write a LoRA adapter, its head included, as PEFT does."""
    model = attached.model
    head = model.config.head.choice_name() if model.config.head else None
    modules = attached.modules()
    pairs, parts = _wholes(modules, model)
    tensors: dict[str, Tensor] = {}
    for name, pair in pairs.items():
        tensors |= {f"{_PREFIX}{name}.lora_A.weight": pair.a, f"{_PREFIX}{name}.lora_B.weight": pair.b}
    saved_modules: set[str] = set()
    for name, tensor in attached.state().items():
        if name.rpartition(".")[0] not in modules:
            foreign = foreign_name(name, model.family, head)
            tensors[_PREFIX + _in_file(foreign, model)] = tensor
            module = foreign.rpartition(".")[0]
            saved_modules.add(module[1:] if module.startswith("@") else module.partition(".")[0])
    ranks = {name: len(pair.a) for name, pair in pairs.items()}
    alphas = {name: pair.scale * ranks[name] for name, pair in pairs.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    config: dict[str, Any] = {
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": _turned(modules, model),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": _whole(alpha),
        "lora_dropout": next(iter(modules.values())).dropout,
        "modules_to_save": sorted(saved_modules) or None,
        "peft_type": "LORA",
        "r": rank,
        "revision": None,
        "target_modules": _target_names(model, modules, pairs, head),
        "task_type": _TASK_TYPES.get(head or ""),
    }
    if any(value != rank for value in ranks.values()):
        config["rank_pattern"] = {name: value for name, value in ranks.items() if value != rank}
    if any(value != alpha for value in alphas.values()):
        config["alpha_pattern"] = {name: _whole(value) for name, value in alphas.items() if value != alpha}
    metadata = {RANKS: json.dumps(parts)} if parts else None
    save_tensors(folder / "adapter_model.safetensors", tensors, metadata=metadata)
    write_json(folder / "adapter_config.json", config)


def why_not_peft(attached: AttachedLoRA) -> str | None:
    """Why PEFT cannot put this adapter on transformers' model; None where it can."""
    model = attached.model
    head = model.config.head.choice_name() if model.config.head else None
    if model.config.family == "custom":
        return "transformers has no class for its base model"
    for site in attached.sites:
        try:
            foreign_name(site, model.family, head)
        except KeyError:
            return f"{site} is no linear map in transformers, but a tensor of three dimensions"
    return None


def read_peft(folder: Path) -> Adapter:
    """Read a PEFT folder.

    Raises:
        CheckpointError: No LoRA adapter, one only as a pickle, or a variant of LoRA that is not supported.
    """
    path = folder / "adapter_config.json"
    config = read_json(path)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{path} peft_type: only LORA adapters can be loaded, got {config.get('peft_type')!r}")
    for key, value in config.items():
        if value and key not in _UNDERSTOOD:
            raise CheckpointError(
                f"{path} {key}: this variant of LoRA is not supported: merge the adapter with PEFT first"
            )
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start not in ("gaussian", "eva"):
        raise CheckpointError(
            f"{path} init_lora_weights: {start!r} changes the base model as well: merge the adapter with PEFT first"
        )
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str):
        raise CheckpointError(f"{path} base_model_name_or_path: must name the base model")
    if config.get("revision") not in (None, "", "main") and not (Path(base).is_dir() or (folder / base).is_dir()):
        raise CheckpointError(
            f"{path} revision: only the newest base model is fetched, not {config['revision']!r}: fetch that one "
            "yourself and name its folder in base_model_name_or_path"
        )
    for key, most in (("lora_alpha", math.inf), ("lora_dropout", 1.0)):
        value = config.get(key, 0)
        if not isinstance(value, int | float) or not 0 <= value < most:
            raise CheckpointError(f"{path} {key}: must be a number of at least 0 and below {most:g}, got {value!r}")
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or not all(_is_pattern(key, value) for key, value in patterns.items()):
        raise CheckpointError(f"{path} alpha_pattern: must be a table from patterns to numbers, got {patterns!r}")
    file = folder / "adapter_model.safetensors"
    if not file.exists() and (folder / "adapter_model.bin").exists():
        raise CheckpointError(
            f"{folder / 'adapter_model.bin'}: weights only as a pickle, which is never loaded: "
            "save the adapter again with a PEFT that writes safetensors"
        )
    tensors = {_plain_name(name): tensor for name, tensor in load_tensors(file).items() if _COPY not in name}
    return Adapter(base, config.get("task_type"), config, tensors, ranks_in(tensor_metadata(file)))


def attach_peft(model: Model, adapter: Adapter, *, source: str) -> AttachedLoRA:
    """Put a PEFT adapter on its base model (with the head it needs already on it).

    Raises:
        CheckpointError: A tensor of the adapter has no place in the model, or it lacks one that the base model has
            not either; nothing is left out in silence.
    """
    head = model.config.head.choice_name() if model.config.head else None
    own = dict(model.named_parameters())
    pairs: dict[str, dict[str, Tensor]] = {}
    plain: dict[str, Tensor] = {}
    for foreign, tensor in _apart(adapter, model, source=source).items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise CheckpointError(f"{source}: the adapter's {foreign.replace('@', '')} holds NaN, or no numbers at all")
        match = re.fullmatch(r"(.*)\.(lora_A|lora_B)\.weight", foreign)
        name = our_name(match[1] if match else foreign, model.family, head)
        if name is not None and match and name + ".weight" in own:
            pairs.setdefault(name, {})[match[2]] = tensor
        elif name in own and not match and tensor.shape == own[name].shape:
            plain[name] = tensor
        else:
            raise CheckpointError(f"{source}: the adapter's {foreign.replace('@', '')} has no place in {model.source}")
    for name in model.fresh:
        if name not in plain:
            foreign = foreign_name(name, model.family, head).replace("@", "")
            raise CheckpointError(
                f"{source}: neither the adapter nor {model.source} holds {foreign}, which the task needs"
            )
    sites = {name: module for name, module in model.named_modules() if isinstance(module, Linear)}
    modules: dict[str, LoRALinear] = {}
    for site, pair in pairs.items():
        a, b = pair.get("lora_A"), pair.get("lora_B")
        base = sites.get(site)
        if (
            base is None
            or a is None
            or b is None
            or a.shape[1:] != base.weight.shape[1:]
            or b.shape != (len(base.weight), len(a))
            or not len(a)
        ):
            raise CheckpointError(f"{source}: lora_A and lora_B of {site} do not fit together or to the model")
        name = with_prefix(whole_and_part(site, model)[0], model.family, bare=False, prefix=model.base_prefix)
        scale = _scale(adapter.config, name, _whole_rank(adapter, site, len(a), model))
        dropout = float(adapter.config.get("lora_dropout", 0.0))
        modules[site] = LoRALinear(base, rank=len(a), scale=scale, dropout=dropout)
    placed = {_placed(name, modules): tensor for name, tensor in plain.items()}
    attached = AttachedLoRA.place(model, modules, also=placed.keys())
    attached.load(placed | {f"{site}.{part}": tensor for site, pair in pairs.items() for part, tensor in pair.items()})
    return attached


def head_size(adapter: Adapter, family: Family, head: str) -> int | None:
    """Outputs of the head that the adapter brings; None where it brings none."""
    output = family.heads[head].keys["output"] + ".weight"
    tensor = normalise(adapter.tensors, family, {}, prefix=family.prefix).get(output)
    return None if tensor is None else len(tensor)


def _plain_name(name: str) -> str:
    """Without PEFT's wrappers; bias="all" names trained heads by theirs a second time."""
    return re.sub(r"\.modules_to_save(\.default)?(?=\.)", "", name.removeprefix(_PREFIX))


def _placed(name: str, modules: Mapping[str, LoRALinear]) -> str:
    """A parameter's name once the modules are in place: that of an adapted map is one level down."""
    site, _, part = name.rpartition(".")
    return f"{site}.base.{part}" if site in modules else name


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    alpha = next(
        (value for key, value in (config.get("alpha_pattern") or {}).items() if re.fullmatch(rf"(.*\.)?({key})", name)),
        config.get("lora_alpha", 8),
    )
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _is_pattern(key: str, value: object) -> bool:
    try:
        re.compile(key)
    except re.error:
        return False
    return isinstance(value, int | float) and math.isfinite(value)


def _wholes(modules: Mapping[str, LoRALinear], model: Model) -> tuple[dict[str, Pair], dict[str, dict[str, int]]]:
    """Updates by the names of transformers' modules, and the ranks of the parts of those that hold several maps."""
    found: dict[str, dict[str, Pair]] = {}
    for site, module in modules.items():
        whole, part = whole_and_part(site, model)
        pair = Pair(module.lora_A.detach(), module.lora_B.detach(), module.scale)
        found.setdefault(whole, {})[part] = pair
    pairs, ranks = {}, {}
    for whole, parts in found.items():
        name, fused = _in_file(whole, model), fused_of(whole, model)
        if fused is None or len(fused.parts) == 1:
            pairs[name] = next(iter(parts.values()))
        else:
            pairs[name] = stack(parts, _sizes(whole, fused, model), fused, model)
            ranks[name] = {part: len(pair.a) for part, pair in parts.items()}
    return pairs, ranks


def _sizes(whole: str, fused: Fused, model: Model) -> list[int]:
    """Rows of each part of a fused module of the blocks; none where the model has no such module."""
    names = [our_name(f"{whole}#{part}", model.family, None) or "" for part in fused.parts]
    own = dict(model.named_modules())
    maps = [own.get(name) for name in names]
    return [
        m.out_features if isinstance(m, Linear) else len(m.base.weight)
        for m in maps
        if isinstance(m, Linear | LoRALinear)
    ]


def _turned(modules: Mapping[str, LoRALinear], model: Model) -> bool:
    """Whether transformers keeps the adapted maps as [in, out]."""
    found = [fused_of(whole_and_part(site, model)[0], model) for site in modules]
    return any(fused is not None and is_turned(fused, model) for fused in found)


def _apart(adapter: Adapter, model: Model, *, source: str) -> dict[str, Tensor]:
    """The adapter's tensors by foreign name, fused ones as their parts."""
    named = normalise(adapter.tensors, model.family, {}, prefix=model.base_prefix)
    named = {name.replace(".base_layer", ""): tensor for name, tensor in named.items()}
    plain = {name: tensor for name, tensor in named.items() if ".lora_" not in name}
    found = split_fused(plain, model.family, model.config.stacks, source=source)
    for name, tensor in named.items():
        if name in plain:
            continue
        whole, mark, tail = name.rpartition(".lora_")
        fused = fused_of(whole, model)
        sizes = [] if fused is None else _sizes(whole, fused, model)
        other = named.get(f"{whole}.lora_{'B' if tail[0] == 'A' else 'A'}.weight")
        if fused is None or len(sizes) != len(fused.parts) or tail not in ("A.weight", "B.weight") or other is None:
            found[name] = tensor
            continue
        if tail == "B.weight":
            continue  # taken with its partner
        if other.ndim != 2 or len(other) != sum(sizes):
            raise CheckpointError(f"{source}: lora_A and lora_B of {_in_file(whole, model)} do not fit to the model")
        ranks = adapter.ranks.get(_in_file(whole, model))
        for part, (a, b) in unstack(tensor, other, sizes, fused, model, ranks=ranks).items():
            found |= {f"{whole}#{part}{mark}A.weight": a, f"{whole}#{part}{mark}B.weight": b}
    return found


def _whole_rank(adapter: Adapter, site: str, rank: int, model: Model) -> int:
    """The rank that PEFT knows of: that of the whole where a part has its own."""
    name = _in_file(whole_and_part(site, model)[0], model)
    return next((len(t) for key, t in adapter.tensors.items() if key == f"{name}.lora_A.weight"), rank)


def _target_names(
    model: Model, modules: Mapping[str, LoRALinear], adapted: Mapping[str, Pair], head: str | None
) -> list[str]:
    """The shortest names that match the adapted maps and no other: ends for all blocks, else whole names."""
    others = {name for name in linear_sites(model) if name not in modules and not name.endswith(".base")}
    spared = {_in_file(key, model) for key in _other_maps(model, head)}
    for site in others:
        with contextlib.suppress(KeyError):  # XLNet's three-dimensional tensors are no modules
            spared.add(_in_file(whole_and_part(site, model)[0], model))
    spared -= adapted.keys()
    found = set()
    for name in adapted:
        ends = [name.split(".", i)[i] for i in range(name.count("."), -1, -1)]
        found.add(next((end for end in ends if not any(("." + s).endswith("." + end) for s in spared)), name))
    return sorted(found)


def _other_maps(model: Model, head: str | None) -> list[str]:
    """Foreign names of the linear maps outside the blocks."""
    names = [
        name.removesuffix(".weight") for name, p in model.named_parameters() if p.ndim == 2 and ".blocks." not in name
    ]
    return [foreign_name(name, model.family, head) for name in names if "lora_" not in name]


def _in_file(foreign: str, model: Model) -> str:
    """A foreign name as it stands in an adapter's file."""
    return with_prefix(foreign, model.family, bare=model.config.head is None, prefix=model.base_prefix)


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value

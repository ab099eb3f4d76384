"""RoPE in config.json: ``rope_theta`` and ``rope_scaling`` of old files, ``rope_parameters`` of transformers 5."""

import math
from typing import Any

from tunesmith.base.errors import CheckpointError
from tunesmith.models import Foreign
from tunesmith.models._fields import may, refuse, settings
from tunesmith.nn.position import PositionConfig
from tunesmith.nn.position._extension import NTK, Dynamic, Extension, Linear, Llama3, YaRN
from tunesmith.nn.position.rope import RoPEConfig

_KINDS: dict[str, type[Extension] | None] = {
    "default": None,
    "linear": Linear,
    "dynamic": Dynamic,
    "yarn": YaRN,
    "llama3": Llama3,
}
_ORIGINAL = "original_max_position_embeddings"


def rope_from_hf(config: Foreign, *, d_head: int, max_positions: int) -> RoPEConfig:
    """RoPE and how it is stretched.

    Args:
        config: The parsed file; ``rope_scaling`` goes before ``rope_parameters``, as in transformers.
        d_head: Width of a head.
        max_positions: Its ``max_position_embeddings``.

    Raises:
        CheckpointError: A field is wrong, or asks for a kind that we have not.
    """
    where = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    table = config.get(where) or {}
    if not isinstance(table, dict) or any(isinstance(value, dict) for value in table.values()):
        raise CheckpointError(f"config.json {where}: must be one table of plain values, got {table!r}")
    for place in (config, table):
        refuse(place, partial_rotary_factor=1.0)
    kind = table.get("rope_type", table.get("type", "default"))
    if not isinstance(kind, str) or kind not in _KINDS:
        raise CheckpointError(f"config.json {where}.rope_type: must be one of {', '.join(_KINDS)}, got {kind!r}")
    extension = _KINDS[kind]
    least = 4 if kind == "dynamic" else 2
    if d_head % 2 or d_head < least:
        raise CheckpointError(f"config.json head_dim: must be even and at least {least} for RoPE, got {d_head}")
    stretched = None
    if extension is not None:
        fields = _fields(extension, {**table, _ORIGINAL: config.get(_ORIGINAL) or table.get(_ORIGINAL)}, max_positions)
        names = {name: f"{where}.{_ORIGINAL if name == 'original' else name}" for name in extension.model_fields}
        stretched = settings(extension, fields, names)
        if isinstance(stretched, Llama3) and stretched.high_freq_factor <= stretched.low_freq_factor:
            raise CheckpointError(
                f"config.json {where}.high_freq_factor: must be above low_freq_factor "
                f"{stretched.low_freq_factor}, got {stretched.high_freq_factor}"
            )
    theta = table.get("rope_theta", config.get("rope_theta"))
    fields = {"theta": 10_000.0 if theta is None else theta, "extension": stretched}
    return settings(RoPEConfig, fields, {"theta": "rope_theta"})


def rope_to_hf(position: PositionConfig, *, d_head: int, max_positions: int) -> dict[str, Any]:
    """Fields of config.json, under both the new names and the old.

    Raises:
        CheckpointError: transformers has no such positions in these families.
    """
    if not isinstance(position, RoPEConfig) or position.pairs != "halves" or position.fraction != 1:
        raise CheckpointError("model: cannot be written in the Hugging Face layout: its positions are not plain RoPE")
    position = without_ntk(position, d_head=d_head)
    extension, theta = position.extension, position.theta
    table: dict[str, Any] = {"rope_type": "default"}
    if extension is not None:
        table = {_ORIGINAL if k == "original" else k: v for k, v in extension.model_dump(exclude_none=True).items()}
        table = {"rope_type": table.pop("kind"), **table}
    if isinstance(extension, Dynamic):
        if table.pop(_ORIGINAL) != max_positions:
            raise CheckpointError(
                "model: cannot be written in the Hugging Face layout: dynamic RoPE must be stretched from "
                f"max_positions {max_positions}, not from {extension.original}"
            )
    return {
        "rope_theta": theta,
        "rope_scaling": None if extension is None else table,
        "rope_parameters": {**table, "rope_theta": theta},
    }


def without_ntk(position: RoPEConfig, *, d_head: int) -> RoPEConfig:
    """The same rotations without NTK stretching, which is nothing but another base."""
    if not isinstance(position.extension, NTK):
        return position
    theta = position.extension.base_for(position.theta, d_head)
    return position.model_copy(update={"theta": theta, "extension": None})


def _fields(extension: type[Extension], table: dict[str, Any], max_positions: int) -> dict[str, Any]:
    """Values of an extension by our names; null means the default."""
    fields = {name: table[name] for name in extension.model_fields if table.get(name) is not None}
    if extension is Dynamic:  # of transformers: what the table says of the original length is not read
        fields["original"] = max_positions
    elif "original" in extension.model_fields:
        fields["original"] = may(table, _ORIGINAL) or max_positions
    if extension is YaRN:
        fields.setdefault("factor", max_positions / fields["original"])
        if "attention_factor" not in fields and table.get("mscale") and table.get("mscale_all_dim"):
            above, below = (_sharpness(fields["factor"], table[name]) for name in ("mscale", "mscale_all_dim"))
            fields["attention_factor"] = above / below
    return fields


def _sharpness(factor: Any, scale: Any) -> float:
    """0.1 scale ln(factor) + 1, of DeepSeek's variant of YaRN.

    Raises:
        CheckpointError: One is no number.
    """
    if not isinstance(factor, int | float) or not isinstance(scale, int | float):
        raise CheckpointError(f"config.json mscale: must be a number beside a factor, got {scale!r} and {factor!r}")
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0

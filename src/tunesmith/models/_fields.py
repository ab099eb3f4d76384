"""Fields of config.json: read with faults told under their names there."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from tunesmith.base.config import Config, build
from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.models import Foreign

C = TypeVar("C", bound=Config)
T = TypeVar("T")

COMMON = {
    "d_model": "hidden_size",
    "d_embedding": "embedding_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "initial_std": "initializer_range",
    "eps": "layer_norm_eps",
}
"""Our names of settings to those that BERT's config.json and many others give them."""
_PROBLEMS = {
    "regression": "regression",
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
}


_MOST = 10_000_000


def need(config: Foreign, name: str, *, least: int = 1) -> int:
    """A whole number that config.json must hold.

    Raises:
        CheckpointError: It is missing, no such number, or beyond all bounds.
    """
    value = config.get(name)
    if isinstance(value, int) and value > _MOST:
        raise CheckpointError(f"config.json {name}: must be at most {_MOST}, got {value!r}")
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CheckpointError(f"config.json {name}: must be a whole number of at least {least}, got {value!r}")
    return value


def may(config: Foreign, name: str, *, least: int = 1) -> int | None:
    """A whole number that config.json may hold; None where it is absent or null."""
    return None if config.get(name) is None else need(config, name, least=least)


def number(config: Foreign, name: str, *, default: float) -> float:
    """A number; the default where it is absent.

    Raises:
        CheckpointError: It is none.
    """
    value = config.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise CheckpointError(f"config.json {name}: must be a number, got {value!r}")
    return value


def flag(config: Foreign, name: str, *, default: bool = False) -> bool:
    """True or false; the default where it is absent or null.

    Raises:
        CheckpointError: It is neither.
    """
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CheckpointError(f"config.json {name}: must be true or false, got {value!r}")
    return value


def refuse(config: Foreign, **only: Any) -> None:
    """Refuse fields that ask for what this family has not.

    Args:
        config: The parsed file.
        only: The one value of each such field that can be honoured; absent and null mean that value.

    Raises:
        CheckpointError: One has another value.
    """
    for name, value in only.items():
        got = config.get(name)
        if got is not None and got != value:
            raise CheckpointError(f"config.json {name}: only {json.dumps(value)} is supported, got {json.dumps(got)}")


def renamed(config: Foreign, names: dict[str, str]) -> dict[str, Any]:
    """config.json with the fields that it may have under another name under their own too; the other name wins."""
    return {**config, **{names[other]: value for other, value in config.items() if other in names}}


def settings(kind: type[C], fields: Foreign, names: Mapping[str, str] = COMMON) -> C:
    """Settings from fields of config.json; a fault is told under its name there.

    Args:
        kind: What to build.
        fields: Values by our names.
        names: Our names to those of config.json, where they differ.

    Raises:
        CheckpointError: A value does not fit.
    """
    try:
        return build(kind, fields)
    except SettingError as error:
        ours, _, fault = str(error).partition(": ")
        raise CheckpointError(f"config.json {names.get(ours, ours)}: {fault}") from None


def look_up(table: Mapping[str, T], config: Foreign, name: str, *, default: str = "gelu") -> T:
    """What a name in config.json stands for.

    Raises:
        CheckpointError: It stands for nothing.
    """
    value = config.get(name, default)
    if not isinstance(value, str) or value not in table:
        raise CheckpointError(f"config.json {name}: must be one of {', '.join(table)}, got {value!r}")
    return table[value]


def num_labels(config: Foreign) -> int:
    """Number of labels in config.json: of ``id2label``, or 2."""
    names = config.get("id2label")
    return len(names) if isinstance(names, dict) and names else need({"num_labels": 2, **config}, "num_labels")


def problem(config: Foreign) -> str:
    """What the outputs of a classification head mean: ``problem_type``, or what their number says."""
    by_number = "regression" if num_labels(config) == 1 else "single_label"
    return _PROBLEMS.get(str(config.get("problem_type")), by_number)

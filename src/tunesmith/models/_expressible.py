"""Can transformers express these stacks? What config.json keeps must give them back."""

from typing import Any

from tunesmith.base.config import Config
from tunesmith.models import Family, Foreign, Stacks
from tunesmith.models._rope import without_ntk
from tunesmith.nn.position.rope import RoPEConfig
from tunesmith.nn.transformer import TransformerConfig

_ONLY_FRESH = ("initial_std",)
"""Fields that shape fresh weights only: a trained model is none the worse for losing them."""


def fault_of_stacks(family: Family, stacks: Stacks, foreign: Foreign) -> str | None:
    """The first setting of the stacks that config.json of this family cannot hold; None where it holds all.

    Args:
        family: The family.
        stacks: Settings of the stacks.
        foreign: Other fields of config.json.
    """
    try:
        again = family.from_hf({**foreign, **family.to_hf(stacks)})
    except (AssertionError, StopIteration, ValueError) as error:  # to_hf of a family looks for what it knows
        usual = _usual(family, foreign)
        reason = None if usual is None else _difference(family, stacks, usual)
        return reason or f"{family.name} in transformers has no such settings ({str(error) or 'unknown part'})"
    return _difference(family, stacks, again)


def _usual(family: Family, foreign: Foreign) -> Stacks | None:
    """Stacks that the family has for sure: those of the model's own config.json, or of a preset."""
    for fields in (foreign, *family.presets.values()):
        try:
            return family.from_hf(fields)
        except ValueError:
            continue
    return None


def _difference(family: Family, stacks: Stacks, other: Stacks) -> str | None:
    for name in ("encoder", "decoder"):
        ours, theirs = getattr(stacks, name), getattr(other, name)
        if ours is None:
            continue
        if theirs is None:
            return f"{family.name} in transformers has no {name}"
        sizes = [field for field in TransformerConfig.model_fields if isinstance(_plain(ours, field), int | float)]
        parts = [field for field in TransformerConfig.model_fields if field not in sizes]
        for field in (*parts, *sizes):  # a size is seldom what a family lacks
            got, want = _plain(ours, field), _plain(theirs, field)
            if got != want and field not in _ONLY_FRESH:
                return f"its {name} has {field} = {_shown(got)}, that of {family.name} in transformers {_shown(want)}"
    return None


def _plain(config: TransformerConfig, field: str) -> Any:
    """A field's value as config.json can tell it apart."""
    value = getattr(config, field)
    if field == "position" and isinstance(value, RoPEConfig):
        return without_ntk(value, d_head=config.head_width)
    if field in ("num_kv_heads", "d_head", "num_stored", "embedding_dropout"):  # None is a way to say the usual
        usual = {"num_kv_heads": config.num_heads, "d_head": config.head_width}
        usual |= {"num_stored": config.num_layers, "embedding_dropout": config.dropout}
        return usual[field] if value is None else value
    if field == "layers" and len(set(map(str, value))) == 1:
        return value[:1]
    return value


def _shown(value: object) -> str:
    return str(value.model_dump(mode="json")) if isinstance(value, Config) else repr(value)

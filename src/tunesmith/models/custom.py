"""Any combination of parts: what no family of transformers has, saved under our own names.

config.json holds the settings of the stacks and of the head as they are; transformers cannot load such a folder.
"""

import functools
from typing import Any

from tunesmith.base import choices
from tunesmith.base.config import build
from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.models import Family, Foreign, HeadTable, Stacks
from tunesmith.models._fields import num_labels
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.transformer import TransformerConfig

_PLAIN = ("classify", "tag")


def _from_hf(config: Foreign) -> Stacks:
    found = Stacks(encoder=_stack(config, "encoder"), decoder=_stack(config, "decoder"))
    if found.encoder is None and found.decoder is None:
        raise CheckpointError("config.json encoder: must be a table of settings where there is no decoder, got null")
    return found


def _stack(config: Foreign, name: str) -> TransformerConfig | None:
    fields = config.get(name)
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise CheckpointError(f"config.json {name}: must be a table of settings, got {fields!r}")
    _refuse_code(fields)
    try:
        return build(TransformerConfig, fields)
    except SettingError as error:
        raise CheckpointError(f"config.json {name}.{error}") from None


def _head(config: Foreign, *, name: str) -> HeadConfig:
    """The head that config.json holds; a plain one for a task where it holds another, or none."""
    fields = config.get("head")
    if name in _PLAIN and (not isinstance(fields, dict) or fields.get("name") != name):
        last = {"pooling": "last"} if name == "classify" and config.get("decoder") is not None else {}
        fields = {"name": name, "num_labels": num_labels(config), **last}
    _refuse_code(fields)
    try:
        found = choices.choose("head", fields)
    except SettingError as error:
        raise CheckpointError(f"config.json head.{error}") from None
    assert isinstance(found, HeadConfig)
    return found


def _refuse_code(value: Any) -> None:
    """A folder must not name modules to import."""
    if isinstance(value, dict):
        name = value.get("name")
        if isinstance(name, str) and ":" in name:
            raise CheckpointError(f"config.json: names code of its own ({name}), which is not run from a folder")
        for part in value.values():
            _refuse_code(part)
    elif isinstance(value, list):
        for part in value:
            _refuse_code(part)


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    named = {"encoder": stacks.encoder, "decoder": stacks.decoder}
    return {name: None if stack is None else stack.model_dump(mode="json") for name, stack in named.items()}


FAMILY = Family(
    name="custom",
    prefix="",
    keys={"encoder": "encoder", "decoder": "decoder", "head": "head"},
    heads={
        name: HeadTable(f"Custom_{name}", {}, functools.partial(_head, name=name)) for name in choices.names("head")
    },
    from_hf=_from_hf,
    to_hf=_to_hf,
    head_to_hf=lambda head: {"head": head.model_dump(mode="json")},
    bare="Custom",
)

"""Settings: frozen pydantic models, layered from dictionaries, with one-line errors that name the dotted path."""

import difflib
import reprlib
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from tunesmith.base.errors import SettingError

C = TypeVar("C", bound="Config")
Tree = dict[str, Any]


class Config(pydantic.BaseModel):
    """Base of all settings: frozen, and a field that does not exist is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def build(kind: type[C], *layers: Mapping[str, Any]) -> C:
    """Merge the layers (later ones win, tables merge key by key) and validate them.

    Raises:
        SettingError: A key is unknown or a value does not fit; the line begins with its dotted path.
    """
    tree: Tree = {}
    for layer in layers:
        tree = merge(tree, layer)
    try:
        return kind.model_validate(tree)
    except pydantic.ValidationError as error:
        raise SettingError(explain(error, kind, tree)) from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Two trees in one: a table of ``above`` is merged into that of ``below``, any other value replaces it.

    A table that names another choice replaces the whole: settings of one choice say nothing of another.
    """
    tree = dict(below)
    for key, value in above.items():
        old = tree.get(key)
        if isinstance(old, str) and isinstance(value, Mapping) and "name" not in value:
            old = {"name": old}  # method = "lora" below, method.rank = 16 above
        if isinstance(old, Mapping) and isinstance(value, Mapping) and _same_choice(old, value):
            tree[key] = merge(old, value)
        else:
            tree[key] = value
    return tree


def _same_choice(old: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return "name" not in old or value.get("name", old["name"]) == old["name"]


def parse_assignments(items: Iterable[str]) -> Tree:
    """``["train.epochs=3", "method.targets=query"]`` as a tree; a value is a TOML value, or else a plain string.

    Raises:
        SettingError: An item has no ``=`` or an empty name, or gives a value to a name that is also a table.
    """
    tree: Tree = {}
    for item in items:
        path, equals, text = item.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise SettingError(f"{item}: not a setting: write it as name.name=value, such as train.epochs=3")
        nested: Any = parse_value(text.strip())
        for key in reversed(keys):
            nested = {key: nested}
        tree = merge(tree, nested)
    return tree


def parse_value(text: str) -> Any:
    """A TOML value (number, true, list, inline table, quoted string), null for none, or the text itself."""
    if "\n" in text:
        return text
    if text == "null":  # TOML has no such value; it takes back what a file or recipe sets
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):  # the last two: nested too deeply, too many digits
        return text


def read_toml(path: Path) -> Tree:
    """A TOML file as a tree.

    Raises:
        SettingError: The file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingError(f"{path}: cannot read the settings: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path}: not a TOML file: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise SettingError(f"{path}: not a TOML file: nested too deeply") from None


def toml_text(tree: Mapping[str, Any]) -> str:
    """The tree as TOML: plain values first, then a table for each mapping; ``None`` is left out."""
    lines: list[str] = []
    _write_table(lines, tree, ())
    return "\n".join(lines).strip() + "\n"


def _write_table(lines: list[str], tree: Mapping[str, Any], path: tuple[str, ...]) -> None:
    if path:
        lines.append(f"\n[{'.'.join(path)}]")
    for key, value in tree.items():
        if value is not None and not isinstance(value, Mapping):
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _write_table(lines, value, (*path, _key(key)))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isascii() and key.replace("_", "").isalnum() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + "}"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    text = "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
    return f'"{text}"'


def explain(error: pydantic.ValidationError, kind: type[pydantic.BaseModel], tree: Mapping[str, Any]) -> str:
    """The first fault of a validation error as one line that begins with the dotted path."""
    first = error.errors(include_url=False)[0]
    # A choice validates its own fields: its SettingError already carries the rest of the path.
    inner = first.get("ctx", {}).get("error")
    path = ".".join(str(part) for part in first["loc"])
    if isinstance(inner, SettingError):
        return f"{path}.{inner}" if path else str(inner)
    got: Any = tree
    for part in first["loc"]:
        got = got.get(str(part)) if isinstance(got, Mapping) else None
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{path}: no such setting: {hint}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    shown = reprlib.repr(got) if not isinstance(got, Mapping) else "a table"
    return (
        f"{path or 'settings'}: must be {message}, got {shown}"
        if "Input should be" in first["msg"]
        else (f"{path or 'settings'}: {message[0].lower() + message[1:]}, got {shown}")
    )


def _fields_at(kind: type[pydantic.BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = kind.model_fields.get(str(part))
        wanted = field.annotation if field else None
        kinds = [k for k in (wanted, *typing.get_args(wanted)) if isinstance(k, type)]  # X, or X | None
        inner = next((k for k in kinds if issubclass(k, pydantic.BaseModel)), None)
        if inner is None:
            return []
        kind = inner
    return sorted(kind.model_fields)

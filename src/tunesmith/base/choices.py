"""Families of choices: a folder is a family, each public file in it is one choice, and the file name is its name.

The choices of the family ``recipe`` are TOML files, all others Python files.

Listing reads file names and docstrings and imports nothing. A choice's file holds one settings class, a subclass of
`Choice`; ``"rope"`` and ``{name = "rope", theta = 1e6}`` both name it, and it is always written as the latter.
"""

import ast
import difflib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic

from tunesmith.base.config import Config, build
from tunesmith.base.errors import SettingError

PACKAGE = Path(__file__).parent.parent
FAMILIES = {
    "position": "nn.position",
    "feedforward": "nn.feedforward",
    "norm": "nn.norm",
    "head": "nn.head",
    "method": "tuning",
    "task": "tasks",
    "objective": "objectives",
    "input": "text.inputs",
    "optimiser": "train.optim",
    "schedule": "train.schedule",
    "track": "train.track",
    "model": "models",
    "recipe": "recipes.pretraining",
}


class Choice(Config):
    """Settings of one choice of a family; the name is that of the file it stands in."""

    @classmethod
    def choice_name(cls) -> str:
        """File name for a choice of ours, ``module:Class`` for one from outside."""
        package, _, name = cls.__module__.rpartition(".")
        ours = package.removeprefix("tunesmith.") in FAMILIES.values() and package.startswith("tunesmith.")
        return name if ours else f"{cls.__module__}:{cls.__name__}"

    @pydantic.model_serializer(mode="wrap")
    def _with_name(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {"name": self.choice_name(), **handler(self)}


def names(family: str) -> list[str]:
    """Names of the family's choices, from its files alone.

    Raises:
        SettingError: There is no such family.
    """
    return sorted(
        path.stem
        for path in _folder(family).glob("*.toml" if family == "recipe" else "*.py")
        if not path.stem.startswith("_") and path.stem != "model"
    )


def summary(family: str, name: str) -> str:
    """First line of the choice's docstring (of a recipe's comment), read without importing it."""
    if family == "recipe":
        return path_of(family, name).read_text(encoding="utf-8").split("\n")[0].removeprefix("# ")
    tree = ast.parse((_folder(family) / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n")[0]


def path_of(family: str, name: str) -> Path:
    """The file of a choice."""
    return _folder(family) / f"{name}.{'toml' if family == 'recipe' else 'py'}"


def module(family: str, name: str) -> Any:
    """The imported module of a choice.

    Raises:
        SettingError: The family has no such choice.
    """
    if name not in names(family):
        close = difflib.get_close_matches(name, names(family), n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(names(family))}"
        raise SettingError(f"{family}: there is no {family} {name!r}: {hint}")
    return importlib.import_module(f"tunesmith.{FAMILIES[family]}.{name}")


def config_class(family: str, name: str) -> type[Choice]:
    """The settings class of a choice; ``my_module:MyConfig`` names one from outside.

    Raises:
        SettingError: There is no such choice.
    """
    if ":" in name:
        return _outside(family, name)
    found = module(family, name)
    own = [
        value
        for value in vars(found).values()
        if isinstance(value, type) and issubclass(value, Choice) and value.__module__ == found.__name__
    ]
    assert len(own) == 1, f"{found.__name__} must define exactly one Choice"
    return own[0]


def choose(family: str, value: Any) -> Choice:
    """A choice from its name, from a table with ``name``, or as it is.

    Raises:
        SettingError: Unknown name, or fields that do not fit; the line begins with the field.
    """
    if isinstance(value, Choice):
        return value
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise SettingError(f"name: a {family} is a name or a table with a name, got {value!r}")
    try:
        kind = config_class(family, value["name"])
    except SettingError as error:
        raise SettingError(f"name: {str(error).removeprefix(f'{family}: ')}") from None
    return build(kind, {key: item for key, item in value.items() if key != "name"})


def chosen(family: str) -> pydantic.BeforeValidator:
    """Pydantic's marker of a field that holds a choice of the family, beside ``SerializeAsAny`` in ``Annotated``."""
    return pydantic.BeforeValidator(lambda value: choose(family, value))


def _folder(family: str) -> Path:
    if family not in FAMILIES:
        raise SettingError(f"{family}: there is no family of that name: choose from {', '.join(FAMILIES)}")
    return PACKAGE / FAMILIES[family].replace(".", "/")


def _outside(family: str, name: str) -> type[Choice]:
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # the last two: no name of a module
        raise SettingError(f"{family}: cannot import {name!r}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Choice)):
        raise SettingError(f"{family}: {name!r} is not a settings class of a choice")
    return found

"""``tunesmith list`` and ``tunesmith show``."""

import inspect
from typing import Annotated, Any

import typer

from tunesmith.base import choices


def list_choices(
    family: Annotated[str | None, typer.Argument(metavar="[FAMILY]", help="Which family; all by default.")] = None,
) -> None:
    """List what can be chosen: methods, tasks, objectives, recipes, models, and the parts of a model."""
    for name in [family] if family else list(choices.FAMILIES):
        members = choices.names(name)
        print(name)
        for choice in members:
            print(f"  {choice:<16} {choices.summary(name, choice)}")


def show(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="Such as method.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as lora.")],
) -> None:
    """Show one choice: what it is, its paper, its settings with defaults, its file."""
    if family == "recipe" and name in choices.names(family):
        file = choices.path_of(family, name)
        print(f"{file.read_text(encoding='utf-8').rstrip()}\n\nfile: {file}")
        return
    found = choices.module(family, name)
    print((inspect.getdoc(found) or "").strip())
    if family == "model":
        presets = ", ".join(found.FAMILY.presets) or "none"
        heads = ", ".join(found.FAMILY.heads)
        print(f"\nheads: {heads}\npresets: {presets}")
    else:
        for field, info in choices.config_class(family, name).model_fields.items():
            default = (
                "required" if info.is_required() else f"default {_shown(info.get_default(call_default_factory=True))}"
            )
            print(f"\n{family}.{field}  ({default})\n    {info.description or ''}")
    print(f"\nfile: {inspect.getsourcefile(found)}")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

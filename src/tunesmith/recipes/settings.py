"""Settings of tuning and comparing, and how they are layered."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic

from tunesmith.base import choices
from tunesmith.base.config import Config, build, merge
from tunesmith.base.errors import SettingError
from tunesmith.tasks._recognise import DataSettings
from tunesmith.train.settings import TrainSettings
from tunesmith.tuning import MethodConfig


class TuneSettings(Config):
    """All settings of a tuning run."""

    method: Annotated[pydantic.SerializeAsAny[MethodConfig], choices.chosen("method")] = pydantic.Field(
        default="lora",
        validate_default=True,
        description="Tuning method.",  # pyright: ignore[reportArgumentType]
    )
    data: DataSettings = pydantic.Field(default_factory=DataSettings, description="What to take from the data.")
    train: TrainSettings = pydantic.Field(default_factory=TrainSettings, description="How to train.")
    tokenizer: str | None = pydantic.Field(default=None, description="Folder of a tokenizer; the model's by default.")


def tune_settings(*layers: Mapping[str, Any]) -> TuneSettings:
    """Layered settings: later ones win.

    Raises:
        SettingError: A name or value is wrong.
    """
    tree: dict[str, Any] = {}
    for layer in layers:
        tree = merge(tree, layer)
    return build(TuneSettings, tree)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"train.epochs": 3}`` as ``{"train": {"epochs": 3}}``."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        for key in reversed(path.split(".")):
            value = {key: value}
        tree = merge(tree, value)
    return tree


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """What differs between two trees, as ``train.seed: 0 -> 1``; None and absent are the same."""
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        name = f"{path}{key}"
        if isinstance(a, Mapping) or isinstance(b, Mapping):
            a, b = (value if isinstance(value, Mapping) else {} for value in (a, b))
            found += differences(a, b, name + ".")
        elif (list(a) if isinstance(a, tuple) else a) != (list(b) if isinstance(b, tuple) else b):
            found.append(f"{name}: {a} -> {b}")
    return found


def check_same(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under other settings.

    Raises:
        SettingError: They differ; the line lists how.
    """
    found = differences(old, new)
    if found:
        raise SettingError(
            f"{folder}: --resume with other settings ({'; '.join(found)}): take the old ones, or --overwrite"
        )

"""Which task a table is for, from its columns and values, unless the settings say."""

import math
from typing import Annotated

import pydantic

from tunesmith.base.choices import config_class
from tunesmith.base.config import Config, build
from tunesmith.base.errors import DataError, SettingError
from tunesmith.tasks import TaskConfig
from tunesmith.text.table import Table

_TEXTS = ("text", "sentence", "review", "content")
_PAIRS = (
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)
_LABELS = ("label", "labels", "score", "category", "class", "sentiment", "similarity")


class DataSettings(Config):
    """What to take from the data, and how."""

    task: str | None = pydantic.Field(
        default=None, description="classification, multilabel, regression or tagging; recognised by default."
    )
    text: str | None = pydantic.Field(default=None, description="Column of the text, or of the words.")
    pair: str | None = pydantic.Field(default=None, description="Column of the second text.")
    label: str | None = pydantic.Field(default=None, description="Column of the label, score or tags.")
    metric: str | None = pydantic.Field(
        default=None,
        description="Metric that models are chosen and ranked by: accuracy, or matthews for two unbalanced classes.",
    )
    max_tokens: Annotated[int, pydantic.Field(ge=4, le=1_000_000)] = pydantic.Field(
        default=256, description="Longest text in tokens (or the model's own limit, if that is less)."
    )
    dev_fraction: Annotated[float, pydantic.Field(gt=0, lt=1)] = pydantic.Field(
        default=0.1, description="Share of the training rows that become the dev split where there is none."
    )


def recognise(table: Table, settings: DataSettings) -> TaskConfig:
    """The task of a table, without its labels.

    Raises:
        DataError: A column is missing, or none can be recognised.
        SettingError: There is no task of that name.
    """
    columns = set(table.columns)
    for setting in ("text", "pair", "label"):
        name = getattr(settings, setting)
        if name is not None and name not in columns:
            has = ", ".join(table.columns)
            raise DataError(f"data.{setting}: {table.source} has no column {name!r}: it has {has}")
    if settings.task == "tagging" or (
        settings.task is None and settings.text is None and {"tokens", "tags"} <= columns
    ):
        return build_task(
            "tagging", text=settings.text or "tokens", label=settings.label or "tags", metric=settings.metric
        )
    text, pair = settings.text, settings.pair
    if text is None:
        text, pair = _text_columns(table, settings)
    label = settings.label or next((name for name in _LABELS if name in columns and name not in (text, pair)), None)
    if label is None:
        raise _unrecognised(table, "label", "label")
    return build_task(settings.task or _kind(table, label), text=text, pair=pair, label=label, metric=settings.metric)


def build_task(name: str, **fields: object) -> TaskConfig:
    """A task by name.

    Raises:
        SettingError: There is no task of that name.
    """
    try:
        kind = config_class("task", name)
    except SettingError as error:
        raise SettingError(f"data.{error}") from None
    task = build(kind, {key: value for key, value in fields.items() if value is not None})
    assert isinstance(task, TaskConfig)
    return task


def _text_columns(table: Table, settings: DataSettings) -> tuple[str, str | None]:
    for first, second in _PAIRS:
        if settings.pair is None and first in table.columns and second in table.columns:
            return first, second
    for name in _TEXTS:
        if name in table.columns and name not in (settings.pair, settings.label):
            return name, settings.pair
    raise _unrecognised(table, "text", "text")


def _kind(table: Table, label: str) -> str:
    values = table.columns[label]
    if any(isinstance(value, list) for value in values):
        return "multilabel"
    return "regression" if label in ("score", "similarity") or _fractions(values) else "classification"


def _fractions(values: list[object]) -> bool:
    """Whether all values are numbers and some are not whole."""
    try:
        numbers = [float(value) for value in values if isinstance(value, str | float | int)]
    except (ValueError, OverflowError):
        return False
    return any(not number.is_integer() for number in numbers if math.isfinite(number))


def _unrecognised(table: Table, what: str, setting: str) -> DataError:
    return DataError(
        f"{table.source}: cannot tell which column holds the {what}: it has {', '.join(table.columns)}: "
        f"name it with data.{setting}=COLUMN"
    )

"""Every choice of every family: found by its file, written with its name, read back with its fields."""

import enum
import types
import typing
from typing import Annotated

import pydantic
import pytest

from tunesmith.base import choices
from tunesmith.base.config import Config, read_toml, toml_text
from tunesmith.base.errors import SettingError
from tunesmith.text.metrics import METRICS

WITH_CONFIG = [family for family in choices.FAMILIES if family not in ("model", "recipe")]
EVERY = [(family, name) for family in WITH_CONFIG for name in choices.names(family)]
SHARES = {"mask": 0.5, "random": 0.25, "keep": 0.25}  # they must sum to one, so no field can change alone
TOGETHER = {
    "mlm": SHARES,
    "sbo": SHARES,
    "unilm": SHARES,
    "mixture": {"parts": ({"name": "mlm", "rate": 0.25}, {"name": "clm"}, {"name": "clm"}), "weights": (3.0, 2.0, 1.0)},
}


def another(kind, field, required):
    """A value of a field that is allowed and differs from the default."""
    info = kind.model_fields[field]
    for value in candidates(info.annotation):
        try:
            found = getattr(kind(**{**required, field: value}), field)
        except pydantic.ValidationError:
            continue
        if info.is_required() or found != info.get_default(call_default_factory=True):
            return found
    raise AssertionError(f"no other value for {field}")


def candidates(kind):
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return candidates(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return [value for part in typing.get_args(kind) for value in candidates(part)]
    if origin is typing.Literal:
        return list(typing.get_args(kind))
    if origin is tuple:
        return [("b", "a"), ("c",)]
    if kind is types.NoneType:
        return [None]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return list(kind)
    if isinstance(kind, type) and issubclass(kind, Config):
        required = {name: 8 for name, info in kind.model_fields.items() if info.is_required()}
        more = {"rate": 0.25} if "rate" in kind.model_fields else {}
        return [kind(**required, **more)]
    return {bool: [False, True], int: [3, 7, 24], float: [0.25, 3e-7, 12.5], str: ['a é \\ "b"', *METRICS]}[kind]


def with_other_fields(family, name):
    kind = choices.config_class(family, name)
    together = TOGETHER.get(name, {}) if family == "objective" else {}
    required = {field: 3 for field, info in kind.model_fields.items() if info.is_required()} | together
    fields = [field for field in kind.model_fields if field not in together]
    return kind(**together, **{field: another(kind, field, required) for field in fields})


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_round_trip(family, name):
    choice = with_other_fields(family, name)
    dumped = choice.model_dump()
    assert dumped["name"] == name == choice.choice_name()
    assert list(dumped)[0] == "name"
    assert choices.choose(family, dumped) == choice
    assert type(choices.choose(family, dumped)) is type(choice)
    assert choices.choose(family, choice.model_dump(mode="json")) == choice
    assert choices.choose(family, choice) is choice
    for field, info in type(choice).model_fields.items():
        if not info.is_required():
            assert getattr(choice, field) != info.get_default(call_default_factory=True), field


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_round_trip_inside_other_settings(family, name, tmp_path):
    """Plain pydantic would dump the fields of the base class and lose those of the choice."""

    class Outer(Config):
        inner: Annotated[pydantic.SerializeAsAny[choices.Choice], choices.chosen(family)]

    outer = Outer(inner=with_other_fields(family, name))
    assert Outer.model_validate(outer.model_dump()) == outer
    assert Outer.model_validate_json(outer.model_dump_json()) == outer
    (tmp_path / "a.toml").write_text(toml_text(outer.model_dump(mode="json")), encoding="utf-8")
    assert Outer.model_validate(read_toml(tmp_path / "a.toml")) == outer


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_every_field_is_described(family, name):
    for field, info in choices.config_class(family, name).model_fields.items():
        assert info.description, f"{name}.{field}"


@pytest.mark.parametrize("family", choices.FAMILIES)
def test_every_choice_says_what_it_is(family):
    assert choices.names(family) == sorted(set(choices.names(family)))
    assert choices.names(family)
    for name in choices.names(family):
        assert choices.summary(family, name)
        if family == "recipe":
            continue
        assert (choices.module(family, name).__doc__ or "").split("\n")[0] == choices.summary(family, name)


def test_a_name_alone_and_a_table():
    assert choices.choose("method", "lora") == choices.choose("method", {"name": "lora"})
    assert choices.choose("method", {"name": "lora", "rank": 3}).rank == 3


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("lorra", "did you mean lora?"),
        ("transmogrify", "choose from bitfit, full"),
        ({"name": "lora", "rnak": 3}, "rnak: no such setting: did you mean rank?"),
        ({"name": "lora", "rank": 0}, "rank: must be greater than or equal to 1, got 0"),
        ({"rank": 3}, "a method is a name or a table with a name"),
        (7, "a method is a name or a table with a name, got 7"),
        ("../lora", "there is no method '../lora'"),
        ("_peft", "there is no method '_peft'"),
    ],
)
def test_mistakes(value, says):
    with pytest.raises(SettingError) as caught:
        choices.choose("method", value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_family():
    with pytest.raises(SettingError, match="there is no family of that name: choose from position"):
        choices.names("methods")


def test_choices_from_outside(tmp_path, monkeypatch):
    text = '''
"""Mine."""
from tunesmith.tuning.full import FullConfig
class Mine(FullConfig):
    """Mine."""
    strength: float = 1.0
class NotOne: ...
'''
    (tmp_path / "outside_choice.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = choices.choose("method", {"name": "outside_choice:Mine", "strength": 2})
    assert found.model_dump() == {"name": "outside_choice:Mine", "strength": 2.0}
    assert choices.choose("method", found.model_dump()) == found
    for name, says in [("outside_choice:NotOne", "is not a settings class"), ("no_such:Thing", "cannot import")]:
        with pytest.raises(SettingError, match=says):
            choices.choose("method", name)

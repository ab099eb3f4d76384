"""Settings: layers, one-line errors with their path, TOML there and back."""

import math
import tomllib

import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunesmith.base.config import Config, build, merge, parse_assignments, parse_value, read_toml, toml_text
from tunesmith.base.errors import SettingError

SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=20))
TREES = st.recursive(
    st.dictionaries(st.text(max_size=8), st.one_of(SCALARS, st.lists(SCALARS, max_size=4)), max_size=4),
    lambda inner: st.dictionaries(st.text(max_size=8), st.one_of(SCALARS, inner), max_size=4),
    max_leaves=12,
)


class Inner(Config):
    rate: float = pydantic.Field(default=0.1, gt=0)
    names: tuple[str, ...] = ()


class Outer(Config):
    size: int = 3
    inner: Inner = Inner()


@given(TREES)
@example({"a": "\U000e0001"})  # not printable, and beyond four digits
@example({"a": '\x7f\x00\\"\n'})
@example({"": {"a.b": {"é": [1, "x"]}}, "²": 1, "-": 2, "_": 3})
@example({"a": math.inf, "b": -math.inf, "c": 1e22, "d": -0.0, "e": 5e-324})
def test_toml_there_and_back(tree):
    again = tomllib.loads(toml_text(tree))
    assert again == tree
    assert repr(again) == repr(reordered(tree))  # 1.0 stays a float, -0.0 keeps its sign


def reordered(tree):
    """Plain values before tables, as TOML must have them."""
    items = sorted(tree.items(), key=lambda item: isinstance(item[1], dict))
    return {key: reordered(value) if isinstance(value, dict) else value for key, value in items}


def test_tables_in_a_list():
    tree = {"parts": [{"name": "a", "rates": [0.5, 1.0]}, {"name": "b", "inner": {"x y": None, "z": '"q'}}]}
    assert tomllib.loads(toml_text(tree)) == {"parts": [tree["parts"][0], {"name": "b", "inner": {"z": '"q'}}]}


def test_none_is_left_out():
    assert toml_text({"a": None, "b": {"c": None, "d": 1}}) == "[b]\nd = 1\n"


@given(TREES)
def test_merging_with_nothing_or_itself_changes_nothing(tree):
    assert merge({}, tree) == merge(tree, {}) == merge(tree, tree) == tree


def test_later_layers_win_key_by_key():
    below = {"size": 1, "inner": {"rate": 0.5, "names": ["x"]}}
    assert merge(below, {"inner": {"rate": 0.7}}) == {"size": 1, "inner": {"rate": 0.7, "names": ["x"]}}
    assert merge(below, {"inner": "other"})["inner"] == "other"
    assert merge({"method": "lora"}, {"method": {"rank": 3}}) == {"method": {"name": "lora", "rank": 3}}
    assert merge({"method": "lora"}, {"method": {"name": "full"}}) == {"method": {"name": "full"}}
    choice = {"method": {"name": "lora", "rank": 3}}
    assert merge(choice, {"method": {"name": "full"}}) == {"method": {"name": "full"}}
    assert merge(choice, {"method": {"name": "lora", "alpha": 1}})["method"] == {"name": "lora", "rank": 3, "alpha": 1}
    assert merge({"method": {"rank": 3}}, {"method": {"name": "lora"}})["method"] == {"name": "lora", "rank": 3}
    assert build(Outer, below, {"inner": {"rate": 0.7}}).inner == Inner(rate=0.7, names=("x",))
    assert below == {"size": 1, "inner": {"rate": 0.5, "names": ["x"]}}


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"sise": 1}, "sise: no such setting: did you mean size?"),
        ({"quux": 1}, "quux: no such setting: known here: inner, size"),
        ({"inner": {"rat": 1}}, "inner.rat: no such setting: did you mean rate?"),
        ({"inner": {"rate": 0}}, "inner.rate: must be greater than 0, got 0"),
        (
            {"inner": {"rate": "fast"}},
            "inner.rate: must be a valid number, unable to parse string as a number, got 'fast'",
        ),
        ({"size": "x"}, "size: must be a valid integer, unable to parse string as an integer, got 'x'"),
        ({"size": None}, "size: must be a valid integer, got None"),
        ({"inner": {"rate": math.nan}}, "inner.rate: must be a finite number, got nan"),
        ({"inner": 3}, "inner: must be a valid dictionary or instance of Inner, got 3"),
    ],
)
def test_mistakes(tree, says):
    with pytest.raises(SettingError) as caught:
        build(Outer, tree)
    assert str(caught.value) == says


def test_settings_are_frozen():
    with pytest.raises(pydantic.ValidationError):
        build(Outer, {}).size = 4


def test_assignments():
    tree = parse_assignments(["a.b=3", "a.c = x y", "d=[1, 2]", 'e="3"', "f=a=b", "g=", "h=true", "a.b=4"])
    assert tree == {"a": {"b": 4, "c": "x y"}, "d": [1, 2], "e": "3", "f": "a=b", "g": "", "h": True}
    for item in ("a", "=3", "a..b=1", ".a=1"):
        with pytest.raises(SettingError, match="write it as name.name=value"):
            parse_assignments([item])


@given(st.text(max_size=30))
def test_any_value_parses(text):
    parse_value(text)


def test_files(tmp_path):
    (tmp_path / "a.toml").write_text("size = 3\n[inner]\nrate = 0.5\n", encoding="utf-8")
    assert read_toml(tmp_path / "a.toml") == {"size": 3, "inner": {"rate": 0.5}}
    (tmp_path / "b.toml").write_text("size = \n", encoding="utf-8")
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe")
    for name, says in [("b", "not a TOML file"), ("c", "not UTF-8"), ("d", "No such file")]:
        with pytest.raises(SettingError, match=says) as caught:
            read_toml(tmp_path / f"{name}.toml")
        assert str(caught.value).startswith(str(tmp_path / f"{name}.toml"))
        assert "\n" not in str(caught.value)


def test_null_takes_a_setting_back():
    class Budget(Config):
        minutes: float | None = 3.0

    assert build(Budget, {"minutes": 5.0}, parse_assignments(["minutes=null"])).minutes is None
    assert parse_value('"null"') == "null"

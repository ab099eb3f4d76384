"""The house keeps its shape: file sizes, docstrings of choices, no oracle in the package, no pickle."""

import ast
import re
from pathlib import Path

import pytest
import torch

import tunesmith
from tunesmith.base import choices
from tunesmith.features.path import Point
from tunesmith.text.table import Table
from tunesmith.train.cost import bill

SOURCE = Path(tunesmith.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(path.relative_to(SOURCE)) for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_file_is_longer_than_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_oracle_is_imported_and_nothing_is_unpickled(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert not imported & {"transformers", "peft", "pytest", "hypothesis", "pickle", "joblib"}
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    loads = [f for f in calls if f.attr == "load" and isinstance(f.value, ast.Name) and f.value.id == "torch"]
    assert not loads


@pytest.mark.parametrize("family", [family for family in choices.FAMILIES if family != "recipe"])
def test_the_contract_of_a_family_is_short(family):
    lines = (SOURCE / choices.FAMILIES[family].replace(".", "/") / "__init__.py").read_text().splitlines()
    assert len(lines) <= 220  # tuning and tasks hold the dataclasses of their contracts as well


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family in choices.FAMILIES for name in choices.names(family)]
)
def test_every_choice_is_described(family, name):
    assert len(choices.summary(family, name)) > 10
    if family not in ("model", "recipe"):
        fields = choices.config_class(family, name).model_fields
        assert all(field.description for field in fields.values())


@pytest.mark.parametrize("document", ["tour.md", "decisions/005_stacks_and_positions.md"])
def test_files_that_a_document_names_are_there(document):
    root = Path(__file__).parents[2]
    named = re.findall(r"`((?:src|docs|tests)/[\w/.]+\.\w+)`", (root / "docs" / document).read_text(encoding="utf-8"))
    assert [name for name in named if not (root / name).is_file()] == []
    assert document != "tour.md" or sum(name.startswith("src/") for name in named) == 8


def test_annotations_are_checked_under_pytest():
    with pytest.raises(TypeError, match="parameter 'source'"):
        Table({"a": [1]}, source=3, lines=[1])
    with pytest.raises(TypeError, match="parameter 'flops'"):
        bill("many", flops_per_second=1.0)
    assert bill(7200, flops_per_second=2).device_hours == 1  # an int is a float
    with pytest.raises(TypeError, match="parameter 'features'"):
        Point(1.0, torch.zeros(2, 3), torch.zeros(2)).logits(torch.zeros(4, 5, 3))

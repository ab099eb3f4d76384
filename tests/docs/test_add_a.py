"""The code in docs/add_a_*.md does what they say: as a module from outside, and as a file of the package."""

import importlib
import re
import shutil
import sys
from pathlib import Path

import pytest
import test_matrix
import torch
import transformers
from parity import assert_equal, check, perturbed, rows
from toys import KINDS, toy

from tunesmith.base import choices
from tunesmith.base.errors import CheckpointError
from tunesmith.models._checkpoint import from_preset, load, save

DOCS = Path(__file__).parents[2] / "docs"


def code(name):
    """The one block of code in a document."""
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    return block


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Write a module of the user's own."""

    def write(name, text):
        folder = tmp_path / "project"
        folder.mkdir()
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return write


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """Write a file into a copy of a family's folder, which then is the package's."""
    imported = []

    def write(family, name, text):
        package = tmp_path / "tunesmith"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(choices.PACKAGE, package, ignore=ignored)
        folder = choices.FAMILIES[family]
        path = package / folder.replace(".", "/")
        (path / f"{name}.py").write_text(text, encoding="utf-8")
        module = importlib.import_module(f"tunesmith.{folder}")
        monkeypatch.setattr(choices, "PACKAGE", package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(path)])
        imported.append((module, name))

    yield write
    for module, name in imported:
        sys.modules.pop(f"{module.__name__}.{name}", None)
        vars(module).pop(name, None)


OUTSIDE = {
    "position": ("add_a_position.md", "my_positions", "KERPLEConfig", "kerple"),
    "feedforward": ("add_a_feedforward.md", "my_layers", "SquaredReLUConfig", "squared_relu"),
}


@pytest.mark.parametrize("family", OUTSIDE)
def test_a_choice_from_outside(family, outside, tmp_path):
    document, module, kind, _ = OUTSIDE[family]
    outside(module, code(document))
    name = f"{module}:{kind}"
    assert name in (DOCS / document).read_text(encoding="utf-8")
    parts = {"position": "rope", "feedforward": "gelu"} | {family: name}
    model = toy("encoder", **parts)
    values = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    names = [path for path, _ in model.named_parameters()]
    assert torch.autograd.gradcheck(
        lambda *values: test_matrix.logits(model, dict(zip(names, values, strict=True))), values, fast_mode=True
    )
    assert getattr(model.config.encoder, family).model_dump() == {"name": name}
    save(model.float(), tmp_path / "saved")
    with pytest.raises(CheckpointError, match=f"names code of its own \\({name}\\), which is not run from a folder"):
        load(tmp_path / "saved")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", OUTSIDE)
def test_a_choice_of_the_house_keeps_the_contract(family, kind, inside, tmp_path):
    document, _, _, name = OUTSIDE[family]
    assert f"{choices.FAMILIES[family].replace('.', '/')}/{name}.py" in (DOCS / document).read_text(encoding="utf-8")
    assert name not in choices.names(family)
    inside(family, name, code(document))
    assert name in choices.names(family)
    assert len(choices.summary(family, name)) > 10
    parts = {"position": "rope", "feedforward": "gelu"} | {family: name}
    test_matrix.test_cell(kind, parts["position"], parts["feedforward"], "layer_norm", tmp_path / "cell")


SIZES = {"vocab_size": 99, "max_position_embeddings": 40, "hidden_dim": 50, "n_layers": 3, "dim": 36, "n_heads": 3}


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification"])
@pytest.mark.parametrize("fields", [{}, {"activation": "relu", "tie_word_embeddings": False}], ids=["plain", "untied"])
def test_a_family_is_equal_to_transformers_both_ways(fields, head, inside, tmp_path):
    inside("model", "distilbert", code("add_a_family.md"))
    kind = getattr(transformers, f"DistilBert{head}")
    labels = {"num_labels": 3} if "Classification" in head else {}
    theirs = perturbed(kind, transformers.DistilBertConfig(**SIZES, **fields, **labels))
    ids, mask = rows(99)
    check(theirs, tmp_path, {"input_ids": ids, "attention_mask": mask})


def test_a_family_refuses_what_it_has_not_and_has_its_preset(inside, tmp_path):
    inside("model", "distilbert", code("add_a_family.md"))
    config = transformers.DistilBertConfig(**SIZES, sinusoidal_pos_embds=True)
    transformers.DistilBertModel(config).save_pretrained(tmp_path / "theirs")
    with pytest.raises(CheckpointError, match="config.json sinusoidal_pos_embds: only false is supported"):
        load(tmp_path / "theirs")
    model = from_preset("distilbert_mini").eval()
    save(model, tmp_path / "ours")
    ids, mask = rows(99)
    theirs = transformers.DistilBertModel.from_pretrained(tmp_path / "ours").eval()
    real = mask.bool()
    assert_equal(model(ids, mask).hidden[real], theirs(ids, mask)[0][real])


def test_the_documents_are_short():
    for document in DOCS.glob("add_a_*.md"):
        text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert len(text.split()) < 300, document

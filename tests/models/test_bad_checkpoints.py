"""A damaged or contradictory checkpoint of any family ends in one line that names the tensor or the field."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import families

import tunesmith as ts
from tunesmith.base.errors import CheckpointError

FIELDS = {  # under one of these names in every family; custom has them one level down
    "width": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "encoder_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "encoder_attention_heads", "num_heads"),
    "words": ("vocab_size",),
    "activation": (
        "hidden_activation",
        "hidden_act",
        "activation_function",
        "ff_activation",
        "dense_act_fn",
        "feedforward",
    ),
}


@pytest.fixture(params=families())
def folder(request, checkpoints, tmp_path):
    return shutil.copytree(checkpoints[request.param], tmp_path / request.param)


def refused(folder, *says):
    """Load it: one line that begins with the folder and holds one of these."""
    with pytest.raises(CheckpointError) as caught:
        ts.load(folder)
    line = str(caught.value)
    assert line.startswith(str(folder)), line
    assert "\n" not in line
    assert any(word in line.removeprefix(str(folder)) for word in says), (says, line)


def set_field(folder, kind, value):
    """Set a field, gone if ``...``; give its name."""
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    place = tree["encoder"] if tree["model_type"] == "custom" else tree
    name = next(name for name in FIELDS[kind] if name in place)
    place[name] = value
    if value is ...:
        del place[name]
    if (tree["model_type"], kind) == ("albert", "layers"):  # its layers share their weights, its groups do not
        place["num_hidden_groups"] = value
    path.write_text(json.dumps(tree))
    return name


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def one_of(tensors):
    """A matrix of the first block."""
    return sorted(n for n, t in tensors.items() if ".0." in n and t.ndim > 1 and "bias" not in n and n[-1] != "r")[0]


def seen(name):
    """What the line calls it: without the base prefix."""
    return name.partition(".")[2]


CONFIGS = {
    "no width": ("width", ...),
    "width null": ("width", None),
    "width a word": ("width", "wide"),
    "width a fraction": ("width", 32.5),
    "negative width": ("width", -32),
    "width beyond all bounds": ("width", 10**12),
    "no layers": ("layers", 0),
    "layers a list": ("layers", [2]),
    "a billion layers": ("layers", 10**9),
    "negative heads": ("heads", -4),
    "no heads": ("heads", 0),
    "no words": ("words", 0),
    "words beyond all bounds": ("words", 10**40),
    "unknown activation": ("activation", "mish"),
    "activation a number": ("activation", 3),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_field(name, folder):
    kind, value = CONFIGS[name]
    if folder.name == "bloom" and kind == "activation":
        pytest.skip("it has no choice of an activation")
    field = set_field(folder, kind, value)
    refused(folder, field, "layer_types" if kind == "layers" else field)


SIZES = {
    "another width": ("width", 64),
    "width of millions": ("width", 2 * 10**6),
    "one word less": ("words", 17),
    "words of millions": ("words", 10**7),
}


@pytest.mark.parametrize("name", SIZES)
def test_size_that_the_tensors_do_not_have(name, folder):
    """No memory is taken for them: 10^7 words of this width would be gigabytes, 2 * 10^6 squared more than any has."""
    field = set_field(folder, *SIZES[name])
    refused(folder, "] asks for [", "but config.json asks for", "which does not fit config.json", field)


@pytest.mark.parametrize("count", [3, 1_000_000])
def test_more_layers_than_there_are(count, folder):
    set_field(folder, "layers", count)
    refused(folder, "layer", "the weights hold no such tensor")


def test_fewer_layers_than_there_are(folder):
    if folder.name == "albert":
        pytest.skip("its layers share their weights")
    set_field(folder, "layers", 1)
    refused(folder, "the weights hold it, but config.json has no place for it", "layer_types")


@pytest.mark.parametrize("kind", ["gpt9", None, ["bert"], "model", "../bert"])
def test_model_type(kind, folder):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": kind}))
    refused(folder, "config.json model_type: must be one of")


TENSORS = {
    "missing": (lambda tensor: None, "the weights hold no such tensor"),
    "a row less": (lambda tensor: tensor[:-1], "has shape"),
    "a column more": (lambda tensor: torch.cat([tensor, tensor[:, :1]], 1), "has shape"),
    "one dimension": (lambda tensor: tensor.flatten(), "has shape"),
    "no numbers": (lambda tensor: tensor[:0], "has shape"),
    "whole numbers": (lambda tensor: tensor.to(torch.int8), "holds torch.int8, not floating-point"),
    "NaN": (lambda tensor: tensor * float("nan"), "holds NaN or infinite"),
    "one infinite": (lambda tensor: tensor.index_fill(0, torch.tensor(0), float("inf")), "holds NaN or infinite"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensor(name, folder):
    change, says = TENSORS[name]
    names = []

    def damage(tensors):
        names.append(one_of(tensors))
        changed = change(tensors.pop(names[0]))
        if changed is not None:
            tensors[names[0]] = changed

    change_tensors(folder, damage)
    with pytest.raises(CheckpointError) as caught:
        ts.load(folder)
    line = str(caught.value)
    assert says in line
    assert seen(names[0]) in line
    assert "\n" not in line


def test_a_block_that_is_missing(folder):
    def damage(tensors):
        block = ".0." if folder.name == "albert" else ".1."
        for name in [name for name in tensors if re.search(re.escape(block), name)]:
            del tensors[name]

    change_tensors(folder, damage)
    refused(folder, "the weights hold no such tensor")


def test_no_token_table(folder):
    def damage(tensors):
        for name in [name for name, tensor in tensors.items() if len(tensor) == max(map(len, tensors.values()))]:
            del tensors[name]

    change_tensors(folder, damage)
    refused(folder, "the weights hold no such tensor")


def test_tensors_of_something_else(folder):
    def damage(tensors):
        tensors.clear()
        tensors["visual.conv1.weight"] = torch.zeros(3, 3)

    change_tensors(folder, damage)
    refused(folder, "the weights hold no such tensor", "the weights are only 1 tensors")

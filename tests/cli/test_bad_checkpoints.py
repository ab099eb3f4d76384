"""Bad models, tokenizers and adapters: one line that names the file, field or tensor, exit code 2, nothing left."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

BIAS = "encoder.layer.0.attention.self.query.bias"


def change_json(path, **changes) -> None:
    """Set fields of a JSON file; None takes one out."""
    tree = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))


CONFIGS = {
    "no JSON": ("{", "config.json: not a JSON file"),
    "not UTF-8": (b"\xff{}", "config.json: not a JSON file"),
    "nested too deeply": ("[" * 100_000, "config.json: not a JSON file: nested too deeply"),
    "a list": ("[]", "config.json: must hold a JSON object, got list"),
    "empty": ("{}", "config.json model_type: must be one of "),
    "unknown family": ({"model_type": "gpt9"}, "config.json model_type: must be one of"),
    "no width": ({"hidden_size": None}, "config.json hidden_size: must be a whole number"),
    "width a string": ({"hidden_size": "32"}, "config.json hidden_size: must be a whole number"),
    "negative width": ({"hidden_size": -32}, "config.json hidden_size: must be a whole number of at least 1, got -32"),
    "no layers": ({"num_hidden_layers": 0}, "config.json num_hidden_layers: must be a whole number of at least 1"),
    "heads do not divide": ({"num_attention_heads": 5}, "num_attention_heads: must divide hidden_size 32, got 5"),
    "vocabulary beyond all bounds": ({"vocab_size": 10**12}, "config.json vocab_size: "),
    "larger than any memory": (
        {"vocab_size": 10**7, "hidden_size": 10**7, "num_attention_heads": 1},
        "embeddings.word_embeddings.weight: has shape [",
    ),
    "unknown activation": ({"hidden_act": "mish"}, "config.json hidden_act: must be one of gelu"),
    "activation a list": ({"hidden_act": ["gelu"]}, "config.json hidden_act: must be one of gelu"),
    "relative positions": ({"position_embedding_type": "relative_key"}, "position_embedding_type: only absolute"),
    "a decoder": ({"is_decoder": True}, "config.json is_decoder: "),
    "dropout above 1": ({"hidden_dropout_prob": 1.5}, "config.json hidden_dropout_prob: must be less than 1"),
    "epsilon a word": ({"layer_norm_eps": "tiny"}, "config.json layer_norm_eps: must be a valid number"),
    "architectures a word": ({"architectures": "BertModel"}, "config.json architectures: must be a list"),
}
OF_A_HEAD = {
    "no labels": ({"num_labels": 0}, "config.json num_labels: must be a whole number of at least 1"),
    "labels a word": ({"num_labels": "three"}, "config.json num_labels: must be a whole number"),
    "names a list": ({"id2label": ["a", "b"]}, "config.json id2label: must be a table"),
    "names without numbers": ({"id2label": {"a": "b"}}, "config.json id2label: must be a table"),
    "dropout a word": ({"classifier_dropout": "much"}, "config.json hidden_dropout_prob: must be a valid number"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_bad_config(desk, name):
    changes, says = CONFIGS[name]
    model = desk.copy(desk.checkpoint, "model")
    if isinstance(changes, dict):
        change_json(model / "config.json", **changes)
    else:
        desk.write("model/config.json", changes)
    desk.refused("convert", model, desk.out, says=says)


@pytest.mark.parametrize("name", OF_A_HEAD)
def test_bad_config_of_a_head(desk, name):
    changes, says = OF_A_HEAD[name]
    model = desk.copy(desk.checkpoint, "model")
    change_json(model / "config.json", architectures=["BertForSequenceClassification"], **changes)
    desk.refused("convert", model, desk.out, says=says)


@pytest.mark.parametrize("changes", [{"num_labels": "three"}, {"classifier_dropout": 2}])
def test_bad_head_field_of_a_bare_model(desk, changes):
    model = desk.copy(desk.checkpoint, "model")
    change_json(model / "config.json", **changes)
    desk.refused("tune", model, desk.reviews, "--out", desk.out, says="config.json ", notes=True)


def test_missing_config(desk):
    model = desk.copy(desk.checkpoint, "model")
    (model / "config.json").unlink()
    desk.refused("convert", model, desk.out, says=f"{model / 'config.json'}: no such file")


@pytest.mark.parametrize("verb", ["tune", "compare"])
def test_missing_folder(desk, verb):
    model = desk.folder / "gone"
    desk.refused(verb, model, desk.reviews, "--out", desk.out, says=f"{model}: no such folder", notes=True)


def test_name_too_long_for_a_folder(desk):
    desk.refused("convert", "x/" + "y" * 300, desk.out, says="no such folder")


def test_file_in_place_of_a_folder(desk):
    model = desk.write("model.bin", b"weights")
    desk.refused("convert", model, desk.out, says=f"{model}: a file, but a model is a folder")


def header(fields: object, *, length: int | None = None) -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


WEIGHTS = {
    "empty": lambda good: b"",
    "garbage": lambda good: b"\x00garbage\xff" * 100,
    "truncated": lambda good: good[: len(good) // 2],
    "shorter than its header says": lambda good: good[:-1],
    "longer than its header says": lambda good: good + b"\0",
    "header longer than the file": lambda good: struct.pack("<Q", 2**40) + good[8:],
    "header no JSON": lambda good: struct.pack("<Q", 4) + b"{{{{",
    "tensor outside the file": lambda good: header({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_damaged_weights(desk, name):
    model = desk.copy(desk.checkpoint, "model")
    path = model / "model.safetensors"
    path.write_bytes(WEIGHTS[name](path.read_bytes()))
    desk.refused("convert", model, desk.out, says=f"{path}: damaged or not a safetensors file")


TENSORS = {
    "missing": (lambda tensor: None, "the weights hold no such tensor"),
    "wrong shape": (lambda tensor: tensor[:-1], "has shape [31], but config.json asks for [32]"),
    "whole numbers": (lambda tensor: tensor.to(torch.int64), "holds torch.int64, not floating-point"),
    "NaN": (lambda tensor: tensor.log() * float("nan"), "holds NaN or infinite"),
    "infinite": (lambda tensor: tensor / 0, "holds NaN or infinite"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_bad_tensor(desk, name):
    change, says = TENSORS[name]
    model = desk.copy(desk.checkpoint, "model")
    tensors = load_file(model / "model.safetensors")
    changed = change(tensors.pop(BIAS))
    save_file(tensors if changed is None else {**tensors, BIAS: changed.contiguous()}, model / "model.safetensors")
    desk.refused("convert", model, desk.out, says=f"{model} {BIAS}: {says}")


def test_no_weights(desk):
    model = desk.copy(desk.checkpoint, "model")
    (model / "model.safetensors").unlink()
    desk.refused("convert", model, desk.out, says=f"{model}: no model.safetensors")


def test_pickle_only(desk):
    model = desk.copy(desk.checkpoint, "model")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    desk.refused("convert", model, desk.out, says="pytorch_model.bin: weights only as a pickle")


SHARDS = {
    "no JSON": ("}", "not a JSON file"),
    "no map": ({}, "holds no weight_map"),
    "map to numbers": ({"weight_map": {BIAS: 1}}, "holds no weight_map from tensors to files"),
    "shard that is missing": ({"weight_map": {BIAS: "model-00002-of-00002.safetensors"}}, "no such file"),
    "tensor that the shard lacks": (
        {"weight_map": {"x": "part.safetensors"}},
        "names x, but part.safetensors does not",
    ),
    "path outside": ({"weight_map": {BIAS: "../other/part.safetensors"}}, "is not the name of a safetensors file"),
    "absolute path": ({"weight_map": {BIAS: "/etc/part.safetensors"}}, "is not the name of a safetensors file"),
    "pickle": ({"weight_map": {BIAS: "part.bin"}}, "is not the name of a safetensors file"),
}


@pytest.mark.parametrize("name", SHARDS)
def test_bad_index_of_shards(desk, name):
    index, says = SHARDS[name]
    model = desk.copy(desk.checkpoint, "model")
    (model / "model.safetensors").rename(model / "part.safetensors")
    desk.write("model/model.safetensors.index.json", index if isinstance(index, str) else json.dumps(index))
    desk.refused("convert", model, desk.out, says=says)


TOKENIZERS = {
    "damaged": ({"tokenizer.json": "{"}, "tokenizer.json: damaged"),
    "of another kind": ({"tokenizer.json": '{"model": 3}'}, "tokenizer.json: damaged"),
    "no [CLS]": ({"vocab.txt": "[UNK]\n[SEP]\nfilm\n"}, "model/vocab.txt: holds no [CLS]"),
    "vocabulary not UTF-8": ({"vocab.txt": b"[UNK]\n\xff\n"}, "model/vocab.txt: not UTF-8"),
    "settings no JSON": ({"tokenizer_config.json": "{"}, "tokenizer_config.json: not a JSON file"),
    "settings a list": ({"tokenizer_config.json": "[]"}, "tokenizer_config.json: must hold a JSON object"),
    "more tokens than the model": (
        {"vocab.txt": "\n".join(["[UNK]", "[CLS]", "[SEP]", *(f"word{i}" for i in range(500))])},
        "its tokenizer makes ids up to 502, but the model has",
    ),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_bad_tokenizer(desk, name):
    files, says = TOKENIZERS[name]
    model = desk.copy(desk.checkpoint, "model")
    for file, content in files.items():
        desk.write(f"model/{file}", content)
    desk.refused("convert", model, desk.out, says=says)


def test_tokenizer_that_cannot_encode_the_texts(desk):
    tokenizer = Tokenizer(WordLevel({"film": 0}))
    tokenizer.pre_tokenizer = Whitespace()
    desk.write("model/tokenizer.json", tokenizer.to_str())
    call = ("tune", desk.checkpoint, desk.reviews, "--out", desk.out, f"tokenizer={desk.folder / 'model'}")
    desk.refused(*call, says="tokenizer: cannot encode these texts: WordLevel error: Missing [UNK]", notes=True)


SMALL = {
    "one segment": ("token_type", 1, {"type_vocab_size": 1}, "config.json type_vocab_size is 1"),
    "two positions": (
        "position",
        2,
        {"max_position_embeddings": 2},
        "data.max_tokens: must leave room beside 3 special",
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_model_too_small_for_pairs(desk, name):
    table, rows, changes, says = SMALL[name]
    model = desk.copy(desk.checkpoint, "model")
    change_json(model / "config.json", **changes)
    tensors = load_file(model / "model.safetensors")
    tensors |= {key: t[:rows].contiguous() for key, t in tensors.items() if f"{table}_embeddings" in key}
    save_file(tensors, model / "model.safetensors")
    desk.refused("tune", model, desk.files["pair"], "--out", desk.out, says=says, notes=True)


def test_no_tokenizer(desk):
    model = desk.copy(desk.checkpoint, "model")
    (model / "vocab.txt").unlink()
    desk.refused("tune", model, desk.reviews, "--out", desk.out, says="has no tokenizer files", notes=True)


def test_tokenizer_folder_without_one(desk):
    folder = desk.folder / "gone"
    call = ("tune", desk.checkpoint, desk.reviews, "--out", desk.out, f"tokenizer={folder}")
    desk.refused(*call, says=f"tokenizer: {folder} holds no tokenizer.json", notes=True)


def test_tokenizer_of_a_larger_model(desk):
    desk.write("other/vocab.txt", "\n".join(["[UNK]", "[CLS]", "[SEP]", *(f"word{i}" for i in range(500))]))
    call = ("tune", desk.checkpoint, desk.reviews, "--out", desk.out, f"tokenizer={desk.folder / 'other'}")
    desk.refused(*call, says="tokenizer: ", notes=True)


ADAPTERS = {
    "IA3": ({"peft_type": "IA3"}, "adapter_config.json peft_type: only LORA"),
    "no type": ({"peft_type": None}, "adapter_config.json peft_type: only LORA"),
    "DoRA": ({"use_dora": True}, "adapter_config.json use_dora: this variant"),
    "no base": ({"base_model_name_or_path": None}, "adapter_config.json base_model_name_or_path: must name"),
    "base that is gone": ({"base_model_name_or_path": "/gone/model"}, "/gone/model: no such folder"),
    "alpha a word": ({"lora_alpha": "big"}, "adapter_config.json lora_alpha: must be a number"),
    "dropout of 1": ({"lora_dropout": 1}, "adapter_config.json lora_dropout: must be a number"),
    "pattern that is none": ({"alpha_pattern": {"(": 8}}, "adapter_config.json alpha_pattern: must be a table"),
}


@pytest.fixture
def adapter(desk, runs):
    """A good PEFT folder as another tool writes it: without our own files."""
    folder = desk.copy(runs("lora"), "adapter")
    for file in ("tunesmith.json", "metrics.json", "run.toml"):
        (folder / file).unlink()
    return folder


def test_good_adapter_is_read(desk, adapter):
    code, lines, _ = desk.run("convert", adapter, desk.out)
    assert code == 0, lines


@pytest.mark.parametrize("name", ADAPTERS)
def test_bad_adapter_config(desk, adapter, name):
    changes, says = ADAPTERS[name]
    change_json(adapter / "adapter_config.json", **changes)
    desk.refused("convert", adapter, desk.out, says=says)


def test_adapter_as_pickle(desk, adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    desk.refused("convert", adapter, desk.out, says="adapter_model.bin: weights only as a pickle")


def test_adapter_without_weights(desk, adapter):
    (adapter / "adapter_model.safetensors").unlink()
    desk.refused("convert", adapter, desk.out, says="adapter_model.safetensors: no such file")


LORA_A = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
ADAPTER_TENSORS = {
    "without a place": (lambda t: {**t, LORA_A.replace("layer.0", "layer.7"): t[LORA_A].clone()}, "has no place in"),
    "without its partner": (lambda t: {k: v for k, v in t.items() if k != LORA_A}, "do not fit together"),
    "wrong shape": (lambda t: {**t, LORA_A: t[LORA_A][:, :-1].contiguous()}, "do not fit together"),
    "other rank than its partner": (lambda t: {**t, LORA_A: t[LORA_A][:-1].contiguous()}, "do not fit together"),
    "NaN": (lambda t: {**t, LORA_A: t[LORA_A] * float("nan")}, "holds NaN"),
}


@pytest.mark.parametrize("name", ADAPTER_TENSORS)
def test_bad_adapter_tensor(desk, adapter, name):
    change, says = ADAPTER_TENSORS[name]
    path = adapter / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    desk.refused("convert", adapter, desk.out, says=says)

"""Decoders against transformers: every head, several shapes, padding on both sides, and what is each family's own."""

import json

import pytest
import torch
from parity import architecture, assert_equal, check, perturbed, rows

from tunesmith.base.errors import CheckpointError
from tunesmith.models._checkpoint import from_preset, load, save
from tunesmith.models._folder import read_config, read_tensors, write_tensors
from tunesmith.nn.head.lm import LMConfig

HEADS = {
    "bare": "Model",
    "lm": "ForCausalLM",
    "classify": "ForSequenceClassification",
    "tag": "ForTokenClassification",
    "span": "ForQuestionAnswering",
}
COMMON = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": 3}
LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
SHAPES = {
    "GPT2": {
        "plain": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
        "odd heads": {"n_embd": 36, "n_layer": 3, "n_head": 3, "n_positions": 23, "n_inner": 50},
        "untied, unscaled": {
            "n_embd": 24,
            "n_layer": 1,
            "n_head": 2,
            "n_positions": 64,
            "n_inner": 20,
            "activation_function": "relu",
            "scale_attn_weights": False,
            "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-3,
        },
    },
    "Llama": {
        "plain": LLAMA,
        "groups, biases": LLAMA
        | {
            "hidden_size": 36,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
        "one key head, wide heads": LLAMA
        | {
            "hidden_size": 30,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "intermediate_size": 20,
            "hidden_act": "gelu",
            "rms_norm_eps": 1e-3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        },
    },
    "Bloom": {
        "plain": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        "odd heads": {"hidden_size": 36, "n_layer": 3, "n_head": 3, "layer_norm_epsilon": 1e-3},
        "heads no power of 2, untied": {"hidden_size": 48, "n_layer": 1, "n_head": 12, "tie_word_embeddings": False},
    },
    "Mistral": {
        "plain": LLAMA | {"sliding_window": None},
        "groups, a window shorter than the text": LLAMA
        | {"num_attention_heads": 8, "num_key_value_heads": 2, "sliding_window": 5, "tie_word_embeddings": True},
        "a window of one's own, wide heads": LLAMA
        | {
            "hidden_size": 30,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 12,
            "sliding_window": 1,
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
        },
    },
    "Qwen2": {
        "plain": LLAMA,
        "groups, a window in upper layers": LLAMA
        | {
            "num_hidden_layers": 3,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        },
        "any layers, wide heads": LLAMA
        | {
            "hidden_size": 30,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "head_dim": 14,
            "intermediate_size": 20,
            "use_sliding_window": True,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 500.0},
        },
    },
    "Qwen3": {
        "plain": LLAMA | {"head_dim": 8},
        "groups, wide heads, windows in all layers": LLAMA
        | {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 10,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 0,
            "tie_word_embeddings": True,
        },
        "biases": LLAMA
        | {
            "hidden_size": 36,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "intermediate_size": 20,
            "attention_bias": True,
            "rms_norm_eps": 1e-3,
        },
    },
}
CASES = [(family, shape) for family, shapes in SHAPES.items() for shape in shapes]


def make(family, head, **fields):
    end = "LMHeadModel" if (family, head) == ("GPT2", "lm") else HEADS[head]
    config = architecture(f"{family}Config")(**{**COMMON, **fields})
    return perturbed(architecture(family + end), config)


def inputs(*, left=False, width=23, count=7):
    ids, mask = rows(COMMON["vocab_size"], left=left, width=width, count=count)
    return {"input_ids": ids, "attention_mask": mask}


def change(folder, *, without=(), **fields):
    """Set fields of config.json."""
    config = {**json.loads((folder / "config.json").read_text()), **fields}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in without}))


def outputs(model, given):
    with torch.no_grad():
        return model(**given)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("family", "shape"), CASES)
def test_outputs_gradients_and_files_are_equal(family, shape, head, tmp_path):
    ours = check(make(family, head, **SHAPES[family][shape]), tmp_path, inputs())
    assert ours.config.stacks == ours.family.from_hf(ours.family.to_hf(ours.config.stacks))
    again = load(tmp_path / "ours")
    for (name, a), (_, b) in zip(ours.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert again.config.stacks == ours.config.stacks
    assert again.config.head == ours.config.head


@pytest.mark.parametrize("head", ["bare", "classify"])
@pytest.mark.parametrize(("family", "shape"), CASES)
def test_left_padding(family, shape, head, tmp_path):
    check(make(family, head, **SHAPES[family][shape]), tmp_path, inputs(left=True))


@pytest.mark.parametrize("family", SHAPES)
def test_given_embeddings_and_positions(family, tmp_path):
    theirs = make(family, "tag", **SHAPES[family]["plain"])
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    vectors = torch.randn(3, 9, 32)
    given = {"inputs_embeds": vectors}
    if family != "Bloom":
        given["position_ids"] = torch.arange(9).flip(0)[None].expand(3, 9) * 2
    assert_equal(outputs(ours, given).logits, outputs(theirs, given).logits)


@pytest.mark.parametrize("family", SHAPES)
def test_files_without_the_base_prefix_and_with_old_buffers(family, tmp_path):
    theirs = make(family, "lm", **{**SHAPES[family]["plain"], "tie_word_embeddings": True})
    theirs.save_pretrained(tmp_path)
    given = inputs()
    want = outputs(load(tmp_path), given)
    prefix = theirs.base_model_prefix + "."
    tensors = {name.removeprefix(prefix): tensor for name, tensor in read_tensors(tmp_path).items()}
    old = {
        "GPT2": {"h.0.attn.bias": torch.ones(1, 1, 40, 40), "h.1.attn.masked_bias": torch.tensor(-1e4)},
        "Bloom": {},
    }.get(family, {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert "lm_head.weight" not in tensors
    write_tensors(tmp_path, tensors | old)
    ours = load(tmp_path)
    assert ours.aside == {}
    assert torch.equal(outputs(ours, given).logits, want.logits)
    save(ours, tmp_path / "again")
    assert set(read_tensors(tmp_path / "again")) == set(theirs.state_dict()) - {"lm_head.weight"}


@pytest.mark.parametrize("family", SHAPES)
def test_a_file_may_repeat_the_tied_table_or_hold_another(family, tmp_path):
    theirs = make(family, "lm", **{**SHAPES[family]["plain"], "tie_word_embeddings": True})
    theirs.save_pretrained(tmp_path)
    given, stored = inputs(), read_tensors(tmp_path)
    table = theirs.get_input_embeddings().weight.detach()
    write_tensors(tmp_path, stored | {"lm_head.weight": table.clone()})
    ours = load(tmp_path)
    assert isinstance(ours.config.head, LMConfig)
    assert ours.config.head.table == "tied"
    assert ours.aside == {}
    assert_equal(outputs(ours, given).logits[given["attention_mask"].bool()], mine(theirs, given))
    write_tensors(tmp_path, stored | {"lm_head.weight": table + 1})
    ours = load(tmp_path)
    assert isinstance(ours.config.head, LMConfig)
    assert ours.config.head.table == "own"
    theirs = type(theirs).from_pretrained(tmp_path)
    assert_equal(outputs(ours, given).logits[given["attention_mask"].bool()], mine(theirs, given))
    save(ours, tmp_path / "again")
    assert read_config(tmp_path / "again")["tie_word_embeddings"] is False
    theirs = type(theirs).from_pretrained(tmp_path / "again")
    assert_equal(outputs(ours, given).logits[given["attention_mask"].bool()], mine(theirs, given))


def mine(theirs, given):
    return outputs(theirs, given).logits[given["attention_mask"].bool()]


@pytest.mark.parametrize("family", SHAPES)
def test_an_untied_head_without_its_table_is_refused(family, tmp_path):
    theirs = make(family, "lm", **{**SHAPES[family]["plain"], "tie_word_embeddings": False})
    theirs.save_pretrained(tmp_path)
    tensors = read_tensors(tmp_path)
    del tensors["lm_head.weight"]
    write_tensors(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight: the weights hold no such tensor"):
        load(tmp_path)


@pytest.mark.parametrize("family", SHAPES)
def test_what_config_may_leave_out_is_as_in_transformers(family, tmp_path):
    kind = architecture(f"{family}Config")
    sizes = SHAPES[family]["plain"]
    kept = {"architectures", "model_type", "vocab_size", *(kind.attribute_map.get(name, name) for name in sizes)}
    optional = {"num_key_value_heads", "n_inner", "head_dim"}
    given = {name: value for name, value in kind(vocab_size=99, **sizes).to_dict().items() if name in kept - optional}
    heads = {"num_attention_heads": 32, "hidden_size": 128} if "num_key_value_heads" in kind().to_dict() else {}
    theirs = kind(**(given | heads))
    (tmp_path / "config.json").write_text(json.dumps(given | heads | {"model_type": theirs.model_type}))
    short = load_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(theirs.to_dict()))
    assert load_config(tmp_path) == short
    names = {"num_labels": 3, "id2label": {0: "a", 1: "b", 2: "c"}}
    for table in family_of(theirs.model_type).heads.values():
        assert table.from_hf(given | names) == table.from_hf(theirs.to_dict() | names)


def load_config(folder):
    config = read_config(folder)
    return family_of(config["model_type"]).from_hf(config)


def family_of(name):
    from tunesmith.base import choices

    return choices.module("model", name).FAMILY


REFUSED = {
    "GPT2": [
        (
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx: only false is supported, got true",
        ),
        ({"add_cross_attention": True}, "add_cross_attention: only false is supported"),
        ({"n_head": 5}, "n_head: must divide n_embd 32, got 5"),
        ({"n_layer": "two"}, "n_layer: must be a whole number"),
        ({"resid_pdrop": 2}, "resid_pdrop: must be less than 1"),
        ({"activation_function": "mish"}, "activation_function: must be one of gelu"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings: must be true or false"),
    ],
    "Llama": [
        (
            {"rope_scaling": {"rope_type": "longrope"}},
            "rope_scaling.rope_type: must be one of default, linear, dynamic",
        ),
        ({"rope_parameters": {"rope_type": "proportional"}}, "rope_parameters.rope_type: must be one of"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor: field required"),
        ({"rope_scaling": {"type": "yarn", "factor": 0.5}}, "rope_scaling.factor: must be greater than"),
        ({"rope_scaling": [2]}, "rope_scaling: must be one table"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope_parameters: must be one table"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: only 1.0 is supported, got 0.5"),
        ({"rope_theta": 0, "rope_parameters": None}, "rope_theta: must be greater than 1"),
        ({"rope_scaling": {"type": "llama3", "factor": 2, "high_freq_factor": 1}}, "high_freq_factor: must be above"),
        ({"head_dim": 9}, "head_dim: must be even"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: must divide 4 heads, got 3"),
        ({"num_attention_heads": 5, "head_dim": None}, "num_attention_heads: must divide hidden_size 32, got 5"),
        ({"hidden_act": "mish"}, "hidden_act: must be one of silu"),
        ({"attention_bias": 3}, "attention_bias: must be true or false"),
        ({"is_causal": False}, "is_causal: only true is supported"),
    ],
    "Bloom": [
        ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm: only false"),
        ({"slow_but_exact": True, "pretraining_tp": 2}, "slow_but_exact: leaves out biases"),
        ({"n_head": 5}, "n_head: must divide hidden_size 32, got 5"),
        ({"layer_norm_epsilon": "tiny"}, "layer_norm_epsilon: must be a valid number"),
    ],
    "Mistral": [
        ({"sliding_window": 0}, "sliding_window: must be a whole number of at least 1"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types: must be full_attention for all layers",
        ),
    ],
    "Qwen2": [
        ({"layer_types": ["full_attention"]}, "layer_types: must be full_attention or sliding_attention for each of 2"),
        ({"layer_types": ["full_attention", ["x"]]}, "layer_types: must be full_attention or sliding_attention"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types: has sliding_attention, but"),
        ({"use_sliding_window": 1}, "use_sliding_window: must be true or false"),
    ],
    "Qwen3": [
        ({"max_window_layers": -1, "layer_types": None}, "max_window_layers: must be a whole number of at least 0")
    ],
}


@pytest.mark.parametrize(
    ("family", "fields", "says"), [(family, *case) for family, cases in REFUSED.items() for case in cases]
)
def test_what_cannot_be_honoured_is_refused(family, fields, says, tmp_path):
    make(family, "lm", **SHAPES[family]["plain"]).save_pretrained(tmp_path)
    change(tmp_path, **fields)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} config.json ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tagging_head_without_bias_is_refused(tmp_path):
    make("Llama", "tag", **LLAMA).save_pretrained(tmp_path)
    change(tmp_path, token_classification_bias=False)
    with pytest.raises(CheckpointError, match=r"config\.json token_classification_bias: only true"):
        load(tmp_path)


def test_the_classifier_reads_the_last_real_token_and_keeps_no_dropout(tmp_path):
    theirs = make("GPT2", "classify", **SHAPES["GPT2"]["plain"])
    ours = check(theirs, tmp_path, inputs())
    given = inputs()
    last = given["attention_mask"].sum(1) - 1
    alone = [ours(row[None, : end + 1]).logits[0] for row, end in zip(given["input_ids"], last, strict=True)]
    assert_equal(ours(**given).logits, torch.stack(alone))
    assert "classifier_dropout" not in read_config(tmp_path / "ours")


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_dropout_of_the_tagging_head(rate, tmp_path):
    make("GPT2", "tag", **SHAPES["GPT2"]["plain"], classifier_dropout=rate).save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert ours.head.dropout == rate
    save(ours, tmp_path / "ours")
    assert load(tmp_path / "ours").head.dropout == rate


def test_gpt2_under_the_other_names_of_its_fields(tmp_path):
    make("GPT2", "bare", **SHAPES["GPT2"]["odd heads"]).save_pretrained(tmp_path)
    want = load(tmp_path).config.stacks
    config = read_config(tmp_path)
    others = {
        "hidden_size": config["n_embd"],
        "num_attention_heads": config["n_head"],
        "num_hidden_layers": config["n_layer"],
        "max_position_embeddings": config["n_positions"],
    }
    change(tmp_path, without=("n_embd", "n_head", "n_layer", "n_positions"), **others)
    assert load(tmp_path).config.stacks == want


def test_bloom_under_the_names_of_the_hub_and_its_fused_rows(tmp_path):
    theirs = make("Bloom", "bare", **SHAPES["Bloom"]["odd heads"])
    theirs.save_pretrained(tmp_path)
    want = load(tmp_path)
    hub = {"n_embed": 36, "num_attention_heads": 3, "n_inner": None, "offset_alibi": 100, "seq_length": 77}
    change(tmp_path, without=("hidden_size", "n_head"), **hub)
    ours = load(tmp_path)
    assert ours.config.decoder.max_positions == 77
    assert ours.config.decoder.model_copy(update={"max_positions": 2048}) == want.config.decoder
    fused = theirs.h[1].self_attention.query_key_value
    for i, part in enumerate(("query", "key", "value")):
        site = getattr(ours.decoder.blocks[1].attention, part)
        assert torch.equal(site.weight, fused.weight.view(3, 3, 12, 36)[:, i].reshape(36, 36))
        assert torch.equal(site.bias, fused.bias.view(3, 3, 12)[:, i].reshape(36))
    save(ours, tmp_path / "ours")
    again = type(theirs).from_pretrained(tmp_path / "ours")
    given = inputs(left=True)
    real = given["attention_mask"].bool()
    assert_equal(outputs(ours, given).hidden[real], outputs(again, given)[0][real])


def test_a_window_counts_the_token_itself(tmp_path):
    make("Mistral", "bare", **LLAMA, sliding_window=5).save_pretrained(tmp_path)
    ours = load(tmp_path)
    ids = torch.randint(5, 99, (1, 12))
    hidden = outputs(ours, {"input_ids": ids}).hidden
    other = ids.clone()
    other[0, 0] = (ids[0, 0] + 1) % 99
    moved = (outputs(ours, {"input_ids": other}).hidden - hidden).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == [True] * 9 + [False] * 3  # two layers, each four tokens back


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3"])
def test_qwens_layers(family, tmp_path):
    size = {**LLAMA, "head_dim": 8, "num_hidden_layers": 4}
    window = {"use_sliding_window": True, "sliding_window": 4}
    theirs = make(family, "bare", **size, **window, max_window_layers=3)
    theirs.save_pretrained(tmp_path)
    assert [layer.window for layer in load(tmp_path).config.decoder.layers] == [None, None, None, 3]
    change(tmp_path, without=("layer_types",))  # a file of transformers 4
    ours = load(tmp_path)
    assert [layer.window for layer in ours.config.decoder.layers] == [None, None, None, 3]
    save(ours, tmp_path / "ours")
    config = read_config(tmp_path / "ours")
    assert config["layer_types"] == ["full_attention"] * 3 + ["sliding_attention"]
    assert (config["sliding_window"], config["use_sliding_window"], config["max_window_layers"]) == (4, True, 3)
    change(tmp_path, without=("layer_types",), use_sliding_window=False, sliding_window=131072)
    ours = load(tmp_path)
    assert [layer.window for layer in ours.config.decoder.layers] == [None]
    save(ours, tmp_path / "ours")
    assert read_config(tmp_path / "ours")["sliding_window"] == 131072


@pytest.mark.parametrize("rate", [None, 0.0, 0.2])
def test_blooms_tagging_head_drops_as_its_hidden_states(rate, tmp_path):
    theirs = make("Bloom", "tag", **SHAPES["Bloom"]["plain"], **({} if rate is None else {"hidden_dropout": rate}))
    theirs.save_pretrained(tmp_path)
    assert load(tmp_path).head.dropout == theirs.dropout.p == (rate or 0.0)


def test_a_fused_matrix_of_a_wrong_shape_is_named(tmp_path):
    make("GPT2", "bare", **SHAPES["GPT2"]["plain"]).save_pretrained(tmp_path)
    tensors = read_tensors(tmp_path)
    name = next(name for name in tensors if name.endswith("h.0.attn.c_attn.bias"))
    write_tensors(tmp_path, tensors | {name: torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"h\.0\.attn\.c_attn\.bias: has shape \[2\], which does not fit"):
        load(tmp_path)


def test_fresh_gpt2_narrows_what_a_layer_adds():
    model = from_preset("gpt2_mini")
    block = model.decoder.blocks[1]
    deep = 0.02 / (2 * 4) ** 0.5
    for weight in (block.attention.output.weight, block.feedforward.down.weight):
        assert weight.std().item() == pytest.approx(deep, rel=0.02)
    for weight in (block.attention.query.weight, block.feedforward.up.weight, model.decoder.embeddings.tokens.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)


ROPE = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "yarn, all fields": {
        "rope_type": "yarn",
        "factor": 3.0,
        "original_max_position_embeddings": 20,
        "beta_fast": 4.0,
        "beta_slow": 2.0,
        "truncate": False,
        "attention_factor": 1.3,
    },
    "yarn of DeepSeek": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "mscale": 0.7,
        "mscale_all_dim": 0.4,
    },
    "yarn without an original length": {"rope_type": "yarn", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


@pytest.mark.parametrize("field", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("kind", ROPE)
def test_every_kind_of_rope_beyond_the_original_length(kind, field, tmp_path):
    size = {**LLAMA, "hidden_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 24}
    theirs = make("Llama", "lm", **size, rope_parameters={**ROPE[kind], "rope_theta": 100.0})
    ids = torch.randint(5, 99, (3, 61))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if field == "rope_scaling":  # a file of transformers 4
        theirs.save_pretrained(tmp_path / "old")
        old = {"type" if name == "rope_type" else name: value for name, value in ROPE[kind].items()}
        old = None if kind == "default" else old
        change(tmp_path / "old", without=("rope_parameters",), rope_scaling=old, rope_theta=100.0)
        want = outputs(theirs, given).logits
        theirs = type(theirs).from_pretrained(tmp_path / "old")
        assert torch.equal(outputs(theirs, given).logits, want)
        ours = load(tmp_path / "old")
        assert_equal(outputs(ours, given).logits, want)
    ours = check(theirs, tmp_path, given)
    rope = ours.config.decoder.position
    assert rope.theta == 100
    assert (rope.extension is None) == (kind == "default")
    fresh = type(theirs).from_pretrained(tmp_path / "ours")
    want = outputs(fresh, given).logits
    assert_equal(outputs(ours, given).logits, want)
    assert_equal(outputs(load(tmp_path / "ours"), given).logits, want)
    plain = make("Llama", "lm", **size, rope_parameters={"rope_type": "default", "rope_theta": 100.0})
    assert kind == "default" or (outputs(plain, given).logits - want).abs().max() > 1e-2  # the kind matters here
    back = architecture("LlamaConfig").from_pretrained(tmp_path / "ours").rope_parameters
    if kind not in ("yarn of DeepSeek", "yarn without an original length"):
        assert {name: back[name] for name in ROPE[kind]} == ROPE[kind]


def test_rope_scaling_goes_before_rope_parameters(tmp_path):
    make("Llama", "bare", **LLAMA).save_pretrained(tmp_path)
    change(tmp_path, rope_scaling={"rope_type": "linear", "factor": 4.0}, rope_theta=77.0)
    theirs = architecture("LlamaModel").from_pretrained(tmp_path)
    given = inputs()
    real = given["attention_mask"].bool()
    assert_equal(outputs(load(tmp_path), given).hidden[real], outputs(theirs, given)[0][real])


def test_dynamic_rope_within_the_original_length_is_plain(tmp_path):
    theirs = make("Llama", "bare", **LLAMA, rope_parameters={**ROPE["dynamic"], "rope_theta": 100.0})
    check(theirs, tmp_path, inputs())


def test_llamas_span_class_has_another_prefix(tmp_path):
    ours = check(make("Llama", "span", **LLAMA), tmp_path, inputs())
    assert ours.base_prefix == "transformer"
    assert "transformer.layers.0.self_attn.q_proj.weight" in read_tensors(tmp_path / "ours")


@pytest.mark.parametrize(
    "name", ["gpt2_mini", "gpt2", "llama_mini", "bloom_mini", "mistral_mini", "qwen2_mini", "qwen3_mini"]
)
def test_presets_are_what_transformers_makes_of_them(name, tmp_path):
    table = family_of(name.partition("_")[0])
    config = {**table.presets[name], "model_type": table.name, "architectures": [table.bare]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = architecture("AutoConfig").from_pretrained(tmp_path)
    with torch.device("meta"):
        reference = architecture(table.bare)(theirs)
    assert table.from_hf(theirs.to_dict()) == table.from_hf(config)
    if name == "gpt2":
        assert sum(parameter.numel() for parameter in reference.parameters()) == 124_439_808
        return
    model = from_preset(name).eval()
    save(model, tmp_path / "ours")
    again, report = type(reference).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    given = inputs()
    real = given["attention_mask"].bool()
    assert_equal(outputs(model, given).hidden[real], outputs(again.eval(), given)[0][real])

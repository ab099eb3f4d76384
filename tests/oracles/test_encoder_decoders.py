"""BART and T5 against transformers: every head and several shapes, padding on both sides, odd files."""

import json

import pytest
import torch
import transformers
from parity import assert_equal, check, perturbed, rows
from safetensors.torch import load_file, save_file
from transformers import BartConfig, T5Config

from tunesmith.base.errors import CheckpointError
from tunesmith.models._checkpoint import from_preset, load, save
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.tag import TagConfig

VOCAB = 99
BART = {
    "plain": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
    },
    "unequal stacks, odd heads": {
        "d_model": 36,
        "encoder_layers": 1,
        "decoder_layers": 3,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 9,
        "encoder_ffn_dim": 50,
        "decoder_ffn_dim": 20,
        "activation_function": "relu",
        "scale_embedding": True,
    },
    "scaled, tanh gelu": {
        "d_model": 24,
        "encoder_layers": 3,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 1,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 48,
        "activation_function": "gelu_new",
        "scale_embedding": True,
        "decoder_start_token_id": 7,
    },
}


def both_sides(*, pad, left=False, count=7, low=5):
    """Documents of both stacks; their lengths have nothing to do with each other."""
    ids, mask = rows(VOCAB, count=count, width=23, pad=pad, low=low, left=left)
    decoder_ids, decoder_mask = rows(VOCAB, count=count, width=14, pad=pad, low=low, seed=1)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])[:count]
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": decoder_ids[order],
        "decoder_attention_mask": decoder_mask[order],
    }


def ending_in_eos(*, pad, eos, left=False):
    """Documents that end in </s>, as the classifiers of both families need."""
    ids, mask = rows(VOCAB, width=19, pad=pad, left=left)
    last = ids.shape[1] - 1 - mask.flip(1).argmax(1)
    ids[torch.arange(len(ids)), last] = eos
    return {"input_ids": ids, "attention_mask": mask}


def bart(head, shape, **extra):
    config = BartConfig(vocab_size=VOCAB, max_position_embeddings=40, **{**BART[shape], **extra})
    theirs = perturbed(getattr(transformers, "Bart" + head), config)
    if head == "ForConditionalGeneration":
        theirs.final_logits_bias.normal_()
    return theirs


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("shape", BART)
@pytest.mark.parametrize("head", ["Model", "ForConditionalGeneration", "ForQuestionAnswering"])
def test_bart(head, shape, left, tmp_path):
    check(bart(head, shape), tmp_path, both_sides(pad=1, left=left))


@pytest.mark.parametrize("shape", BART)
def test_bart_classifier(shape, tmp_path):
    ours = check(
        bart("ForSequenceClassification", shape, num_labels=5, classifier_dropout=0.3),
        tmp_path,
        ending_in_eos(pad=1, eos=2),
    )
    assert ours.config.head == ClassifyConfig(
        num_labels=5, pooling="last", hidden="tanh", hidden_dropout=0.3, dropout=0.3
    )


@pytest.mark.parametrize("head", ["Model", "ForConditionalGeneration", "ForQuestionAnswering"])
def test_bart_shifts_its_own_input(head, tmp_path):
    """Without decoder_input_ids; transformers reads padding on the left as tokens of the decoder, so do we."""
    theirs = bart(head, "scaled, tanh gelu")
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    for left in (False, True):
        ids, mask = rows(VOCAB, pad=1, left=left)
        real = mask.bool()
        got, want = ours(ids, attention_mask=mask), theirs(input_ids=ids, attention_mask=mask)
        for ours_field, theirs_field in (("hidden", "last_hidden_state"), ("logits", "logits")):
            if theirs_field in want:
                assert_equal(getattr(got, ours_field)[real], want[theirs_field][real])
        if head == "ForQuestionAnswering":
            assert_equal(got.start_logits[real], want.start_logits[real])
        assert_equal(got.encoder_hidden[real], want.encoder_last_hidden_state[real])
    assert_equal(ours(ids).hidden, ours(ids, attention_mask=torch.ones_like(ids)).hidden)


def test_bart_classifier_with_padding_on_the_left(tmp_path):
    theirs = bart("ForSequenceClassification", "plain")
    theirs.save_pretrained(tmp_path)
    inputs = ending_in_eos(pad=1, eos=2, left=True)
    assert_equal(load(tmp_path)(**inputs).logits, theirs(**inputs).logits)


def test_bart_inputs_embeds_are_not_scaled(tmp_path):
    theirs = bart("Model", "scaled, tanh gelu")
    theirs.save_pretrained(tmp_path)
    inputs = {"inputs_embeds": torch.randn(3, 9, 24), "decoder_input_ids": torch.randint(5, VOCAB, (3, 4))}
    assert_equal(load(tmp_path)(**inputs).hidden, theirs(**inputs).last_hidden_state)


def own_head(theirs):
    theirs.lm_head.weight = torch.nn.Parameter(torch.randn_like(theirs.lm_head.weight) * 0.1)
    return theirs


@pytest.mark.parametrize("shape", BART)
def test_bart_with_an_untied_head(shape, tmp_path):
    """The flag says tied, the tensors differ: transformers keeps the head, and so do we."""
    ours = check(own_head(bart("ForConditionalGeneration", shape)), tmp_path, both_sides(pad=1))
    assert ours.config.head == LMConfig(activation=None, bias="fixed", table="own")
    again = load(tmp_path / "ours")
    assert torch.equal(again.head.table.weight, ours.head.table.weight)


def test_bart_says_untied_but_has_one_table(tmp_path):
    """transformers 5.23 leaves both stacks of such a file with random token tables; the file's one serves here."""
    theirs = own_head(bart("ForConditionalGeneration", "plain"))
    inputs = both_sides(pad=1)
    want = theirs(**inputs).logits
    theirs.save_pretrained(tmp_path)
    edit_config(tmp_path, tie_word_embeddings=False)
    broken, report = transformers.BartForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}
    real = inputs["decoder_attention_mask"].bool()
    assert not torch.allclose(broken(**inputs).logits[real], want[real], atol=1e-2)
    assert_equal(load(tmp_path)(**inputs).logits[real], want[real])


def test_bart_files_of_all_ages(tmp_path):
    """Repeated tables, version buffers, no prefix, no output bias."""
    theirs = bart("ForConditionalGeneration", "plain")
    theirs.final_logits_bias.zero_()
    theirs.save_pretrained(tmp_path)
    inputs = both_sides(pad=1)
    real = inputs["decoder_attention_mask"].bool()
    want = theirs(**inputs).logits[real]
    tensors = load_file(tmp_path / "model.safetensors")
    table = tensors["model.shared.weight"]
    old = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name != "final_logits_bias"}
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        old[name] = table.clone()
    old |= {"encoder.version": torch.tensor([3.0]), "decoder.version": torch.tensor([3.0])}
    save_file(old, tmp_path / "model.safetensors")
    ours = load(tmp_path)
    assert ours.config.head.table == "tied"
    assert ours.aside == {}
    assert_equal(ours(**inputs).logits[real], want)
    del old["shared.weight"]
    save_file(old, tmp_path / "model.safetensors")
    assert_equal(load(tmp_path)(**inputs).logits[real], want)


def test_bart_with_two_token_tables_is_refused(tmp_path):
    theirs = bart("ForConditionalGeneration", "plain", tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"^\S*embed_tokens.weight: is not the same as \S+, but"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("decoder_layerdrop", 0.1),
        ("normalize_before", True),
        ("is_encoder_decoder", False),
        ("encoder_attention_heads", 5),
        ("decoder_layers", 0),
        ("activation_function", "mish"),
        ("activation_dropout", 1.5),
    ],
)
def test_bart_config_that_cannot_be_honoured(field, value, tmp_path):
    bart("Model", "plain").save_pretrained(tmp_path)
    edit_config(tmp_path, **{field: value})
    with pytest.raises(CheckpointError, match=rf"config.json {field}: [^\n]+$"):
        load(tmp_path)


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("table", ["tied", "own"])
def test_bart_from_a_preset(table, tmp_path):
    """A head of its own is written as transformers reads it: with both stacks' tables beside it."""
    model = from_preset("bart_mini").with_head(LMConfig(activation=None, bias="fixed", table=table)).eval()
    save(model, tmp_path)
    theirs, report = transformers.BartForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    ids = torch.randint(5, 50265, (2, 9))
    assert_equal(model(ids).logits, theirs(ids).logits)
    assert_equal(load(tmp_path)(ids).logits, theirs(ids).logits)


T5 = {
    "plain 1.0": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4},
    "1.1: gated, wide heads, unequal stacks": {
        "d_model": 36,
        "d_kv": 20,
        "d_ff": 50,
        "num_layers": 1,
        "num_decoder_layers": 3,
        "num_heads": 3,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
    "narrow heads, few buckets": {
        "d_model": 24,
        "d_kv": 4,
        "d_ff": 40,
        "num_layers": 3,
        "num_decoder_layers": 1,
        "num_heads": 5,
        "feed_forward_proj": "gated-silu",
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 16,
        "layer_norm_epsilon": 1e-5,
    },
    "gelu, one layer": {"d_model": 20, "d_kv": 10, "d_ff": 20, "num_layers": 1, "num_heads": 1}
    | {"feed_forward_proj": "gelu"},
}


def t5(head, shape, **extra):
    fields = {"decoder_start_token_id": 0, "initializer_factor": 0.5, **T5[shape], **extra}
    return perturbed(getattr(transformers, "T5" + head), T5Config(vocab_size=VOCAB, **fields))


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("shape", T5)
@pytest.mark.parametrize("head", ["Model", "ForConditionalGeneration", "ForQuestionAnswering"])
def test_t5(head, shape, left, tmp_path):
    check(t5(head, shape), tmp_path, both_sides(pad=0, left=left))


@pytest.mark.parametrize("shape", T5)
def test_t5_classifier(shape, tmp_path):
    theirs = t5("ForSequenceClassification", shape, num_labels=5, classifier_dropout=0.3)
    check(theirs, tmp_path, ending_in_eos(pad=0, eos=1))
    inputs = ending_in_eos(pad=0, eos=1, left=True)
    assert_equal(load(tmp_path / "theirs")(**inputs).logits, theirs(**inputs).logits)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("shape", T5)
def test_t5_tagger_has_the_encoder_alone(shape, left, tmp_path):
    ids, mask = rows(VOCAB, pad=0, left=left)
    ours = check(
        t5("ForTokenClassification", shape, num_labels=5), tmp_path, {"input_ids": ids, "attention_mask": mask}
    )
    assert ours.decoder is None


@pytest.mark.parametrize("shape", T5)
def test_t5_encoder_alone(shape, tmp_path):
    theirs = t5("EncoderModel", shape)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    ids, mask = rows(VOCAB, pad=0)
    want = theirs(ids, attention_mask=mask).last_hidden_state
    assert_equal(ours(ids, attention_mask=mask).hidden[mask.bool()], want[mask.bool()])
    save(ours, tmp_path / "ours")
    again, report = transformers.T5EncoderModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(again(ids, attention_mask=mask).last_hidden_state, want)


def test_t5_tagger_from_a_whole_model(tmp_path):
    """transformers reads tags off the encoder: the decoder stays behind."""
    t5("ForConditionalGeneration", "plain 1.0").save_pretrained(tmp_path / "theirs")
    model = load(tmp_path / "theirs").with_head(TagConfig(num_labels=3)).eval()
    save(model, tmp_path / "ours")
    theirs, report = transformers.T5ForTokenClassification.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids, mask = rows(VOCAB, pad=0)
    real = mask.bool()
    assert_equal(model(ids, attention_mask=mask).logits[real], theirs(ids, attention_mask=mask).logits[real])


@pytest.mark.parametrize("head", ["ForQuestionAnswering", "ForSequenceClassification"])
def test_t5_shifts_its_own_input(head, tmp_path):
    theirs = t5(head, "1.1: gated, wide heads, unequal stacks")
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    for left in (False, True):
        inputs = ending_in_eos(pad=0, eos=1, left=left)
        real = inputs["attention_mask"].bool()
        got, want = ours(**inputs), theirs(**inputs, output_hidden_states=True)
        assert_equal(got.hidden[real], want.decoder_hidden_states[-1][real])


@pytest.mark.parametrize("says_tied", [True, False, None])
@pytest.mark.parametrize("shape", T5)
def test_t5_with_an_untied_head(shape, says_tied, tmp_path):
    """The tensors decide what is tied; the flag only says whether the output is scaled, as transformers 5.23 reads it.

    transformers writes ``tie_word_embeddings: true`` for every T5, so the flag of its own files is of no use.
    """
    theirs = own_head(t5("ForConditionalGeneration", shape, tie_word_embeddings=says_tied))
    ours = check(theirs, tmp_path, both_sides(pad=0))
    width = theirs.config.d_model
    scale = 1.0 if says_tied is False else width**-0.5
    assert ours.config.head == LMConfig(activation=None, bias=False, table="own", scale=scale)
    again = load(tmp_path / "ours")
    assert torch.equal(again.head.table.weight, theirs.lm_head.weight)
    assert again.config.head == ours.config.head


@pytest.mark.parametrize("said", [{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}])
def test_t5_original_files(said, tmp_path):
    """Files of transformers 4: the table up to four times, a bias in cross-attention that nothing reads."""
    theirs = t5("ForConditionalGeneration", "plain 1.0", **said)
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("tie_word_embeddings", "scale_decoder_outputs", "is_gated_act", "dense_act_fn"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config | said))
    inputs = both_sides(pad=0)
    real = inputs["decoder_attention_mask"].bool()
    want = theirs(**inputs).logits[real]
    tensors = load_file(tmp_path / "model.safetensors")
    table = tensors.pop("shared.weight")
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(32, 4)
    names = ["shared.weight", "decoder.embed_tokens.weight", "encoder.embed_tokens.weight", "lm_head.weight"]
    for present in (names, *([name] for name in names), names[1:]):
        save_file(tensors | {name: table.clone() for name in present}, tmp_path / "model.safetensors")
        ours = load(tmp_path)
        assert ours.config.head.table == "tied"
        assert ours.aside == {}
        assert_equal(ours(**inputs).logits[real], want)


@pytest.mark.parametrize("name", ["decoder.embed_tokens.weight", "encoder.embed_tokens.weight"])
def test_t5_without_shared_keeps_its_head(name, tmp_path):
    """MADLAD's files: ``decoder.embed_tokens`` and another ``lm_head``."""
    theirs = own_head(t5("ForConditionalGeneration", "plain 1.0", tie_word_embeddings=False))
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[name] = tensors.pop("shared.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    inputs = both_sides(pad=0)
    real = inputs["decoder_attention_mask"].bool()
    ours = load(tmp_path)
    assert ours.config.head.table == "own"
    assert_equal(ours(**inputs).logits[real], theirs(**inputs).logits[real])


def test_t5_1_1_keeps_its_head_where_transformers_ties_it(tmp_path):
    """transformers 5.23 ties the head of a T5 1.1 that it makes from its config, and again at every ``tie_weights``.

    Ours has a head of its own from the start, and transformers keeps it when it loads our file.
    """
    config = T5Config(vocab_size=VOCAB, **T5["1.1: gated, wide heads, unequal stacks"])
    made = transformers.T5ForConditionalGeneration(config)
    assert made.lm_head.weight is made.shared.weight
    model = from_preset("t5_v1_1_small")
    head = model.family.heads["lm"].from_hf(model.config.foreign)
    assert head == LMConfig(activation=None, bias=False, table="own")
    model = model.with_head(head).eval()
    save(model, tmp_path)
    theirs, report = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert torch.equal(theirs.lm_head.weight, model.head.table.weight)
    inputs = {"input_ids": torch.randint(5, 999, (2, 9)), "decoder_input_ids": torch.randint(5, 999, (2, 4))}
    assert_equal(model(**inputs).logits, theirs(**inputs).logits)
    again = load(tmp_path)
    assert torch.equal(again.head.table.weight, model.head.table.weight)
    theirs.tie_weights()
    assert not torch.equal(theirs.lm_head.weight, model.head.table.weight)


def test_t5_fresh_weights_are_spread_as_in_transformers():
    """But for the head of 1.1, which starts at d_model^-0.5 (transformers ties it to a table of deviation 1)."""
    model = from_preset("t5_v1_1_small")
    model = model.with_head(model.family.heads["lm"].from_hf(model.config.foreign))
    theirs = transformers.T5Model(T5Config(**model.config.foreign))
    found = model.foreign_tensors()
    for name, tensor in theirs.named_parameters():
        ours = found["@" + name]
        assert ours.mean().item() == pytest.approx(tensor.mean().item(), abs=0.1)
        if tensor.ndim > 1:
            assert ours.std().item() == pytest.approx(tensor.std().item(), rel=0.2), name
    assert found["lm_head.weight"].std().item() == pytest.approx(512**-0.5, rel=0.05)


def test_t5_with_two_token_tables_is_refused(tmp_path):
    t5("Model", "plain 1.0").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"] + 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"^shared.weight: is not the same as decoder.embed_tokens.weight, but"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("is_decoder", True),
        ("num_decoder_layers", 0),
        ("d_kv", None),
        ("dense_act_fn", "mish"),
        ("dropout_rate", 2.0),
        ("layer_norm_epsilon", -1.0),
        ("relative_attention_num_buckets", 5),
    ],
)
def test_t5_config_that_cannot_be_honoured(field, value, tmp_path):
    t5("Model", "plain 1.0").save_pretrained(tmp_path)
    edit_config(tmp_path, **{field: value})
    with pytest.raises(CheckpointError, match=rf"config.json {field}: [^\n]+$"):
        load(tmp_path)

"""BART and T5 against transformers: every head and several shapes, padding on both sides, odd files."""

import json

import pytest
import torch
import transformers
from parity import assert_equal, check, perturbed, rows
from safetensors.torch import load_file, save_file
from transformers import BartConfig

from tunesmith.base.errors import CheckpointError
from tunesmith.models._checkpoint import from_preset, load, save
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.lm import LMConfig

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

"""Encoder families against transformers: every family, head and several shapes, both ways."""

import json

import pytest
import torch
import transformers
from parity import architecture, assert_equal, check, check_gradients, perturbed, rows

from tunesmith.base import choices
from tunesmith.base.errors import CheckpointError
from tunesmith.base.layout import make_layout
from tunesmith.models._checkpoint import from_preset, load, save
from tunesmith.models._folder import read_tensors, write_tensors
from tunesmith.nn.position.disentangled import log_buckets

HEADS = [
    "Model",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForMaskedLM",
    "ForQuestionAnswering",
    "ForMultipleChoice",
]
BERT_SHAPES = {
    "plain": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "odd heads": {"hidden_size": 36, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 50},
    "untied": {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "tie_word_embeddings": False,
    },
}


def make(family, head, fields, *, labels=3):
    """A random model of transformers; ``labels``: of classifiers."""
    if "Classification" in head:
        fields = {**fields, "num_labels": labels}
    model = perturbed(architecture(family + head), architecture(family + "Config")(**fields))
    if fields.get("tie_word_embeddings") is False:
        for module in model.modules():  # beside an own table this bias is dead: the decoder's computes
            if isinstance(getattr(module, "decoder", None), torch.nn.Linear) and hasattr(module, "bias"):
                module.bias.data.copy_(module.decoder.bias.data)
    return model


def inputs_for(config, head, *, width=23, segments=True):
    """Rows of mixed lengths; for choices, seven texts with three candidates each would be too many: two with three."""
    if head == "ForMultipleChoice":
        ids, mask = rows(config.vocab_size, count=6, width=width, pad=config.pad_token_id, low=6)
        ids, mask = ids.view(2, 3, -1), mask.view(2, 3, -1)
    else:
        ids, mask = rows(config.vocab_size, width=width, pad=config.pad_token_id, low=6)
    found = {"input_ids": ids, "attention_mask": mask}
    if segments:
        stream = torch.Generator().manual_seed(1)
        found["token_type_ids"] = torch.randint(0, config.type_vocab_size, ids.shape, generator=stream)
    return found


ALBERT = {"vocab_size": 99, "max_position_embeddings": 40, "embedding_size": 20}
ALBERT_SHAPES = {
    "plain": BERT_SHAPES["plain"],
    "two groups": BERT_SHAPES["odd heads"] | {"num_hidden_groups": 2},
    "untied, as wide": BERT_SHAPES["untied"] | {"embedding_size": 24, "hidden_act": "gelu"},
}


@pytest.mark.parametrize("shape", ALBERT_SHAPES)
@pytest.mark.parametrize("head", [*HEADS, "ForPreTraining"])
def test_albert(head, shape, tmp_path):
    theirs = make("Albert", head, ALBERT | ALBERT_SHAPES[shape])
    ours = check(theirs, tmp_path, inputs_for(theirs.config, head))
    assert len(ours.encoder.blocks) == theirs.config.num_hidden_groups


def test_albert_with_several_layers_in_a_group_is_refused(tmp_path):
    make("Albert", "Model", ALBERT | BERT_SHAPES["plain"] | {"inner_group_num": 2}).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="config.json inner_group_num: only 1"):
        load(tmp_path)


def test_albert_order_logits_come_from_the_pooler_and_their_labels_are_kept(tmp_path):
    theirs = make("Albert", "ForPreTraining", ALBERT | BERT_SHAPES["plain"])
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    given = inputs_for(theirs.config, "ForPreTraining")
    assert ours(**given).pair_logits.shape == (7, 2)  # 0: in order, 1: swapped
    assert ours.head.pool.weight.equal(theirs.albert.pooler.weight)
    assert_equal(ours(**given).pair_logits, theirs(**given).sop_logits)


DEBERTA = {
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "max_relative_positions": 40,
    "position_biased_input": False,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
}
DEBERTA_SHAPES = {
    "v3": BERT_SHAPES["plain"],
    "own maps, all distances, types, absolute positions": BERT_SHAPES["odd heads"]
    | {
        "share_att_key": False,
        "position_buckets": -1,
        "max_relative_positions": -1,
        "type_vocab_size": 2,
        "position_biased_input": True,
        "norm_rel_ebd": "none",
    },
    "content to position, narrow table, untied": BERT_SHAPES["untied"]
    | {"pos_att_type": "c2p", "share_att_key": False, "embedding_size": 20, "pooler_hidden_act": "tanh"},
    "position to content": BERT_SHAPES["odd heads"] | {"pos_att_type": ["p2c"], "share_att_key": False},
    "convolution": BERT_SHAPES["odd heads"] | {"conv_kernel_size": 3, "conv_groups": 2, "conv_act": "gelu"},
    "wide convolution, one layer": BERT_SHAPES["untied"] | {"conv_kernel_size": 5},
    "not relative": BERT_SHAPES["plain"] | {"relative_attention": False, "position_biased_input": True},
}


@pytest.mark.parametrize("shape", DEBERTA_SHAPES)
@pytest.mark.parametrize("head", HEADS)
def test_deberta_v2(head, shape, tmp_path):
    theirs = make("DebertaV2", head, DEBERTA | DEBERTA_SHAPES[shape])
    given = inputs_for(theirs.config, head, width=61, segments=theirs.config.type_vocab_size > 0)  # behind the buckets
    check(theirs, tmp_path, given)


@pytest.mark.parametrize("tied", [True, False])
def test_deberta_language_model_under_microsofts_names(tied, tmp_path):
    shape = BERT_SHAPES["plain"] | {"legacy": False, "tie_word_embeddings": tied}
    theirs = make("DebertaV2", "ForMaskedLM", DEBERTA | shape)
    check(theirs, tmp_path, inputs_for(theirs.config, "ForMaskedLM", width=61, segments=False))


def test_deberta_head_that_transformers_loses_is_not_lost(tmp_path):
    theirs = make("DebertaV2", "ForMaskedLM", DEBERTA | BERT_SHAPES["plain"] | {"legacy": False})
    given = inputs_for(theirs.config, "ForMaskedLM", width=61, segments=False)
    want, real = theirs(**given).logits, given["attention_mask"].bool()
    theirs.save_pretrained(tmp_path / "hub")
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    for name in ("legacy", "architectures"):  # as in the released files
        del config[name]
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    lost, report = type(theirs).from_pretrained(tmp_path / "hub", output_loading_info=True)
    assert report["missing_keys"]
    assert not torch.allclose(lost(**given).logits, want, atol=1e-3)

    bare = load(tmp_path / "hub")
    assert bare.head is None
    ours = bare.with_head(bare.family.heads["lm"].from_hf(bare.config.foreign)).eval()
    assert ours.fresh == ()
    assert_equal(ours(**given).logits[real], want[real])
    for number, model in enumerate((bare, ours)):  # kept aside, or as the head
        save(model, tmp_path / str(number))
        again, report = type(theirs).from_pretrained(tmp_path / str(number), output_loading_info=True)
        assert not report["missing_keys"]
        assert_equal(again(**given).logits[real], want[real])


def test_deberta_replaced_token_head_reads_the_first_token_too(tmp_path):
    theirs = make("DebertaV2", "Model", DEBERTA | BERT_SHAPES["plain"])
    theirs.save_pretrained(tmp_path / "bare")
    torch.manual_seed(0)
    dense, norm, output = torch.nn.Linear(32, 32), torch.nn.LayerNorm(32, eps=1e-7), torch.nn.Linear(32, 1)
    torch.nn.init.normal_(norm.weight)
    parts = {"dense": dense, "LayerNorm": norm, "classifier": output}
    tensors = {f"deberta.{name}": tensor for name, tensor in read_tensors(tmp_path / "bare").items()}
    for name, part in parts.items():
        tensors |= {f"mask_predictions.{name}.{key}": value for key, value in part.state_dict().items()}
    tensors["deberta.embeddings.position_embeddings.weight"] = torch.randn(64, 32)  # v3's, of the enhanced decoder
    write_tensors(tmp_path / "v3", tensors)
    config = json.loads((tmp_path / "bare" / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "v3" / "config.json").write_text(json.dumps(config))

    bare = load(tmp_path / "v3")
    ours = bare.with_head(bare.family.heads["rtd"].from_hf(bare.config.foreign)).eval()
    assert ours.fresh == ()
    given = inputs_for(theirs.config, "Model", width=61, segments=False)
    real = given["attention_mask"].bool()
    hidden = theirs(**given).last_hidden_state
    want = output(torch.nn.functional.gelu(dense(norm(hidden + hidden[:, :1]))))[..., 0]
    assert_equal(ours(**given).logits[real], want[real])
    save(ours, tmp_path / "ours")
    assert load(tmp_path / "ours").config.head == ours.config.head
    assert_equal(load(tmp_path / "ours")(**given).logits[real], want[real])
    assert_equal(transformers.AutoModel.from_pretrained(tmp_path / "ours")(**given)[0][real], hidden[real])
    save(bare, tmp_path / "again")  # nothing of the file is lost
    assert {name: tensor.sum() for name, tensor in read_tensors(tmp_path / "again").items()} == {
        name.removeprefix("deberta."): tensor.sum() for name, tensor in tensors.items()
    }


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("conv_kernel_size", 4, "config.json conv_kernel_size: must be 1, 3, 5"),
        ("pos_att_type", ["c2p", "p2p"], "config.json pos_att_type: only c2p and p2c"),
        ("norm_rel_ebd", "batch_norm", "config.json norm_rel_ebd: must be layer_norm or none"),
        ("attention_head_size", 4, "config.json attention_head_size: must be 8"),
        ("position_buckets", "many", "config.json position_buckets: must be a valid integer"),
    ],
)
def test_deberta_fields_that_cannot_be_honoured_are_named(field, value, line, tmp_path):
    make("DebertaV2", "Model", DEBERTA | BERT_SHAPES["plain"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(CheckpointError, match=line):
        load(tmp_path)


def test_deberta_buckets():
    distances = torch.tensor([127, 128, 129, 200, 256, 400, 511, -127, -200, 0])
    found = log_buckets(distances, num_buckets=256, max_distance=512)
    assert found.tolist() == [127, 128, 129, 169, 192, 233, 255, -127, -169, 0]


def test_model_types_are_those_of_config_json_and_files_have_underscores(tmp_path):
    make("DebertaV2", "Model", DEBERTA | BERT_SHAPES["plain"]).save_pretrained(tmp_path)
    assert load(tmp_path).config.family == "deberta_v2"
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "deberta-v2"
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "deberta_v2"}))
    with pytest.raises(CheckpointError, match="model_type: must be one of albert, .*deberta-v2"):
        load(tmp_path)


FIRST = {  # family: fields, further heads
    "Bert": ({"type_vocab_size": 2}, ["ForPreTraining"]),
    "Roberta": ({"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}, []),
    "Electra": ({"type_vocab_size": 2, "embedding_size": 20, "hidden_act": "gelu_new"}, ["ForPreTraining"]),
}


@pytest.mark.parametrize("shape", BERT_SHAPES)
@pytest.mark.parametrize(("family", "head"), [(f, h) for f, (_, more) in FIRST.items() for h in HEADS[4:] + more])
def test_further_heads_of_the_first_families(family, head, shape, tmp_path):
    fields = {"vocab_size": 99, "max_position_embeddings": 40, **FIRST[family][0]}
    theirs = make(family, head, {**BERT_SHAPES[shape], **fields})
    check(theirs, tmp_path, inputs_for(theirs.config, head))


def test_electra_projects_embeddings_only_where_they_are_narrower(tmp_path):
    fields = {"vocab_size": 99, "embedding_size": 32, "max_position_embeddings": 40} | BERT_SHAPES["plain"]
    theirs = make("Electra", "ForMaskedLM", fields)
    ours = check(theirs, tmp_path, inputs_for(theirs.config, "ForMaskedLM"))
    assert ours.encoder.embeddings.project is None


@pytest.mark.parametrize(("field", "value"), [("summary_type", "mean"), ("summary_use_proj", False)])
def test_electra_summaries_other_than_the_first_token_are_refused(field, value, tmp_path):
    fields = {"vocab_size": 99, "embedding_size": 20, "max_position_embeddings": 40, field: value}
    make("Electra", "ForMultipleChoice", fields | BERT_SHAPES["plain"]).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"config.json {field}: only"):
        load(tmp_path)


def test_spanbert_files_keep_their_boundary_head(tmp_path):
    theirs = make("Bert", "ForMaskedLM", {"vocab_size": 99} | BERT_SHAPES["plain"])
    theirs.save_pretrained(tmp_path / "spanbert")
    extra = {  # the names of SpanBERT's code
        "cls.pair_target_predictions.position_embeddings.weight": torch.randn(20, 12),
        "cls.pair_target_predictions.mlp_layer_norm.linear1.weight": torch.randn(32, 76),
        "cls.pair_target_predictions.decoder.bias": torch.randn(99),
        "cls.pair_target_predictions.bias": torch.randn(99),
    }
    write_tensors(tmp_path / "spanbert", read_tensors(tmp_path / "spanbert") | extra)
    ours = load(tmp_path / "spanbert")
    given = inputs_for(theirs.config, "ForMaskedLM")
    real = given["attention_mask"].bool()
    assert_equal(ours(**given).logits[real], theirs(**given).logits[real])
    save(ours, tmp_path / "again")
    again = read_tensors(tmp_path / "again")
    for name, tensor in read_tensors(tmp_path / "spanbert").items():
        assert torch.equal(again[name], tensor), name


@pytest.mark.parametrize("family", ["Albert", "Bert", "DebertaV2"])
@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForMultipleChoice"])
def test_another_head_dropout_is_written(family, head, tmp_path):
    theirs = make(family, head, {"vocab_size": 99, "embedding_size": 32} | BERT_SHAPES["plain"])
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    ours.config = ours.config.model_copy(update={"head": ours.config.head.model_copy(update={"dropout": 0.37})})
    save(ours, tmp_path / "ours")
    assert type(theirs).from_pretrained(tmp_path / "ours").dropout.p == 0.37
    assert load(tmp_path / "ours").config.head == ours.config.head


def test_labels_of_another_head_do_not_widen_a_span_head(tmp_path):
    theirs = make("Bert", "ForTokenClassification", {"vocab_size": 99} | BERT_SHAPES["plain"], labels=5)
    theirs.save_pretrained(tmp_path / "tags")
    tagger = load(tmp_path / "tags")
    save(tagger.with_head(tagger.family.heads["span"].from_hf({})), tmp_path / "span")
    _, report = transformers.BertForQuestionAnswering.from_pretrained(tmp_path / "span", output_loading_info=True)
    assert not report["mismatched_keys"]
    assert not report["missing_keys"]


MODERN = {"vocab_size": 99, "max_position_embeddings": 64, "pad_token_id": 3, "local_attention": 10}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
MODERN_SHAPES = {
    "plain": {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 40},
    "all biases, mean, old names": {
        "hidden_size": 36,
        "num_hidden_layers": 5,
        "num_attention_heads": 3,
        "intermediate_size": 25,
        "attention_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "classifier_bias": True,
        "classifier_pooling": "mean",
        "classifier_activation": "silu",
        "decoder_bias": False,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 5000.0,
        "local_rope_theta": 100.0,
    },
    "untied": {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "tie_word_embeddings": False,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "hidden_activation": "gelu_new",
    },
}


@pytest.mark.parametrize("shape", MODERN_SHAPES)
@pytest.mark.parametrize("head", HEADS)
def test_modernbert(head, shape, tmp_path):
    theirs = make("ModernBert", head, MODERN | SPECIAL | MODERN_SHAPES[shape])
    ours = check(theirs, tmp_path, inputs_for(theirs.config, head, width=61, segments=False))  # six windows
    assert isinstance(ours.encoder.blocks[0].attention_norm, torch.nn.Identity)


def test_modernbert_window_is_half_the_setting_on_either_side(tmp_path):
    shape = MODERN_SHAPES["plain"] | {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}
    make("ModernBert", "Model", MODERN | SPECIAL | shape).save_pretrained(tmp_path)
    ours = load(tmp_path)
    ids = torch.arange(10, 31)[None]
    other = ids.clone()
    other[0, 10] = 9
    changed = (ours(ids).hidden != ours(other).hidden).any(-1)[0].nonzero()[:, 0]
    assert changed.tolist() == list(range(5, 16))


def test_modernbert_bases_stay_apart(tmp_path):
    shape = MODERN_SHAPES["all biases, mean, old names"]
    make("ModernBert", "Model", MODERN | SPECIAL | shape).save_pretrained(tmp_path)
    config = load(tmp_path).config.encoder
    assert config.position.theta == 5000.0
    assert [layer.position.theta for layer in config.layers if layer.position] == [100.0]
    released = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 40}
    old = MODERN | released | {"global_rope_theta": 7.0, "local_rope_theta": 8.0, "global_attn_every_n_layers": 3}
    found = choices.module("model", "modernbert").FAMILY.from_hf(old).encoder
    assert (found.position.theta, found.layers[1].position.theta, len(found.layers)) == (7.0, 8.0, 3)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"layer_types": ["full_attention"]}, "config.json layer_types: must be 4 times"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "config.json rope_parameters: only rope_type"),
        ({"hidden_activation": "mish"}, "config.json hidden_activation: must be one of"),
        ({"classifier_pooling": "max"}, "config.json classifier_pooling: must be one of cls, mean"),
        ({"num_attention_heads": 32}, "config.json num_attention_heads: heads of 32 / 32 must have an even width"),
    ],
)
def test_modernbert_fields_that_cannot_be_honoured_are_named(fields, line, tmp_path):
    shape = MODERN | SPECIAL | MODERN_SHAPES["plain"]
    make("ModernBert", "ForSequenceClassification", shape).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(CheckpointError, match=line):
        load(tmp_path)


XLNET = {"vocab_size": 99}
XLNET_SHAPES = {
    "plain": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "odd heads": {"d_model": 36, "n_layer": 3, "n_head": 3, "d_inner": 50, "ff_activation": "relu"},
    "untied": {"d_model": 24, "n_layer": 1, "n_head": 2, "d_inner": 24, "tie_word_embeddings": False},
}
XLNET_HEADS = [
    "Model",
    "LMHeadModel",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnsweringSimple",
    "ForMultipleChoice",
]


def xlnet_inputs(head, *, width=30, count=6):
    """Rows as XLNet has them: padding first, segments 0, 1 and 2 for the class token."""
    ids, mask = rows(99, count=count, width=width, pad=5, low=6, left=True)
    segments = (torch.arange(width) > 12).long().expand(ids.shape).clone()
    segments[:, -1] = 2
    found = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    return {name: x.view(2, 3, -1) for name, x in found.items()} if head == "ForMultipleChoice" else found


@pytest.mark.parametrize("shape", XLNET_SHAPES)
@pytest.mark.parametrize("head", XLNET_HEADS)
def test_xlnet(head, shape, tmp_path):
    theirs = make("XLNet", head, XLNET | XLNET_SHAPES[shape])
    check(theirs, tmp_path, xlnet_inputs(head))


def test_xlnet_causal(tmp_path):
    theirs = make("XLNet", "LMHeadModel", XLNET | XLNET_SHAPES["plain"] | {"attn_type": "uni"})
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    ids = torch.arange(6, 29)[None]  # one row: transformers fails on several
    assert_equal(ours(ids).logits, theirs(ids).logits)
    save(ours, tmp_path / "ours")
    assert_equal(type(theirs).from_pretrained(tmp_path / "ours")(ids).logits, theirs(ids).logits)


def permuted(mask, *, share=0.3, seed=0):
    """A random order of prediction of each row: perm_mask, target_mapping (M = most targets of a row)."""
    stream = torch.Generator().manual_seed(seed)
    count, width = mask.shape
    chosen = (torch.rand(count, width, generator=stream) < share) & mask.bool()
    chosen[:, -1] = False  # the class token is seen by all
    order = torch.where(chosen, torch.rand(count, width, generator=stream), -1.0)
    perm_mask = ((order[:, :, None] <= order[:, None]) & chosen[:, None]).float()
    most = int(chosen.sum(1).max())
    mapping = torch.zeros(count, most, width)
    for row in range(count):
        for number, column in enumerate(chosen[row].nonzero()[:, 0].flip(0)):  # any order will do
            mapping[row, number, column] = 1.0
    return perm_mask, mapping


@pytest.mark.parametrize("shape", XLNET_SHAPES)
@pytest.mark.parametrize("masks", ["order and targets", "order", "targets"])
def test_xlnet_two_streams(masks, shape, tmp_path):
    theirs = make("XLNet", "LMHeadModel", XLNET | XLNET_SHAPES[shape])
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    given = xlnet_inputs("LMHeadModel")
    perm_mask, mapping = permuted(given["attention_mask"])
    real = mapping.sum(2) > 0 if "targets" in masks else given["attention_mask"].bool()
    given |= {"perm_mask": perm_mask} if "order" in masks else {}
    given |= {"target_mapping": mapping} if "targets" in masks else {}
    want, got = theirs(**given, output_hidden_states=True), ours(**given)
    assert_equal(got.logits[real], want.logits[real])
    assert_equal(got.hidden[real], want.hidden_states[-1][real])
    assert (got.hidden[~real] == 0).all()
    weight = torch.linspace(-1, 1, got.logits[real].numel())
    (got.logits[real].flatten() @ weight).backward()
    (want.logits[real].flatten() @ weight).backward()
    check_gradients(ours, theirs)
    assert (ours.encoder.embeddings.query.grad is None) == ("targets" not in masks)


def test_xlnet_queries_do_not_see_their_own_token(tmp_path):
    make("XLNet", "LMHeadModel", XLNET | XLNET_SHAPES["plain"]).save_pretrained(tmp_path)
    ours = load(tmp_path)
    given = xlnet_inputs("LMHeadModel")
    perm_mask, mapping = permuted(given["attention_mask"], share=0.1)
    before = ours(**given, perm_mask=perm_mask, target_mapping=mapping).logits
    row, number, column = mapping.nonzero()[0].tolist()
    others = mapping[row].sum(0).bool()
    given["input_ids"][row, column] = 7 + (given["input_ids"][row, column] == 7).long()
    after = ours(**given, perm_mask=perm_mask, target_mapping=mapping).logits
    assert torch.equal(before[row, number], after[row, number])
    seen = [i for i in others.nonzero()[:, 0].tolist() if perm_mask[row, i, column] == 0]
    changed = [bool((before[row] != after[row])[int(mapping[row, :, i].argmax())].any()) for i in seen]
    assert all(changed)


def test_xlnet_segments_of_single_rows(tmp_path):
    theirs = make("XLNet", "ForSequenceClassification", XLNET | XLNET_SHAPES["plain"])
    theirs.save_pretrained(tmp_path)
    ours, given = load(tmp_path), xlnet_inputs("")
    order = given["attention_mask"].sum(1).argsort(stable=True)
    lengths = given["attention_mask"].sum(1)[order].tolist()
    parts = [given["attention_mask"][row].bool() for row in order]
    ids = torch.cat([given["input_ids"][row][part] for row, part in zip(order, parts, strict=True)])
    segments = torch.cat([given["token_type_ids"][row][part] for row, part in zip(order, parts, strict=True)])
    found = ours.logits(ids, make_layout(lengths, segments=segments))  # the last block runs on last tokens only
    assert_equal(found, theirs(**given).logits[order])


@pytest.mark.parametrize(
    "target_mapping", [torch.ones(6, 1, 30), torch.eye(30)[:2].sum(0, keepdim=True).expand(6, 1, 30)]
)
def test_xlnet_targets_are_single_tokens(target_mapping, tmp_path):
    make("XLNet", "LMHeadModel", XLNET | XLNET_SHAPES["plain"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="target_mapping: each prediction"):
        load(tmp_path)(**xlnet_inputs(""), target_mapping=target_mapping)


@pytest.mark.parametrize(
    ("head", "field", "value"),
    [
        ("Model", "clamp_len", 5),
        ("Model", "bi_data", True),
        ("Model", "same_length", True),
        ("Model", "attn_type", "tri"),
        ("ForSequenceClassification", "summary_type", "mean"),
        ("ForSequenceClassification", "summary_use_proj", False),
    ],
)
def test_xlnet_fields_that_cannot_be_honoured_are_named(head, field, value, tmp_path):
    make("XLNet", head, XLNET | XLNET_SHAPES["plain"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(CheckpointError, match=f"config.json {field}: "):
        load(tmp_path)


SMALL = {  # family: head, fields
    "Albert": ("ForSequenceClassification", ALBERT | BERT_SHAPES["plain"]),
    "DebertaV2": ("ForSequenceClassification", DEBERTA | BERT_SHAPES["untied"] | {"conv_kernel_size": 3}),
    "ModernBert": ("ForSequenceClassification", MODERN | SPECIAL | MODERN_SHAPES["plain"]),
}


@pytest.mark.parametrize("family", SMALL)
def test_work_on_first_tokens_alone_gives_the_same_logits(family, tmp_path):
    head, fields = SMALL[family]
    make(family, head, fields).save_pretrained(tmp_path)
    ours = load(tmp_path)
    lengths = [1, 4, 17, 17, 33, 39]
    ids = torch.randint(6, 99, (sum(lengths),), generator=torch.Generator().manual_seed(0))
    whole = torch.cat([ours(part[None]).logits for part in ids.split(lengths)])
    assert_equal(ours.logits(ids, make_layout(lengths)), whole)


@pytest.mark.parametrize("preset", ["albert_mini", "deberta_v3_mini", "xlnet_mini", "modernbert_mini"])
def test_presets_train_and_transformers_reads_them(preset, tmp_path):
    bare = from_preset(preset)
    model = bare.with_head(bare.family.heads["lm"].from_hf(bare.config.foreign)).train()
    more = {}
    if preset == "xlnet_mini":
        more = {
            "target_mapping": torch.eye(40)[None, :5].expand(2, -1, -1),
            "perm_mask": torch.eye(40).expand(2, -1, -1),
        }
    logits = model(torch.randint(6, 1000, (2, 40)), **more).logits
    logits.float().logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    save(model, tmp_path)
    theirs = architecture(model.family.heads["lm"].architecture)
    again, report = theirs.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = torch.randint(6, 1000, (2, 40))
    assert_equal(model.eval()(ids).logits, again(ids).logits)


def test_a_bare_albert_without_its_pooler_loads(tmp_path):
    theirs = make("Albert", "Model", ALBERT | BERT_SHAPES["plain"])
    theirs.save_pretrained(tmp_path)
    tensors = {name: tensor for name, tensor in read_tensors(tmp_path).items() if not name.startswith("pooler")}
    write_tensors(tmp_path, tensors)
    ours = load(tmp_path)
    given = inputs_for(theirs.config, "Model")
    real = given["attention_mask"].bool()
    assert ours.head is None
    assert_equal(ours(**given).hidden[real], theirs(**given)[0][real])

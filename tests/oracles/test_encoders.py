"""Encoder families against transformers: every family, head and several shapes, both ways."""

import pytest
import torch
from parity import architecture, assert_equal, check, perturbed, rows

from tunesmith.base.errors import CheckpointError
from tunesmith.models._checkpoint import load

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

"""BERT: encoder with learned positions, post-norm, segment pairs.

Paper: BERT (arXiv:1810.04805); SpanBERT (arXiv:1907.10529) has the same encoder and names. Its span boundary head,
which no task reads, is kept aside: such a file loads, and is saved again whole.
"""

from tunesmith.models import Family, HeadTable
from tunesmith.models._encoder import (
    KEYS,
    choice_from_hf,
    classify_from_hf,
    encoder_from_hf,
    encoder_to_hf,
    lm_from_hf,
    pretrain_from_hf,
    tag_from_hf,
)
from tunesmith.nn.head.pool import PoolConfig
from tunesmith.nn.head.span import SpanConfig

_SMALL = {"vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0}
_LM = {
    "dense": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
    "bias": "cls.predictions.bias",
    "table": "cls.predictions.decoder",
}
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}

FAMILY = Family(
    name="bert",
    prefix="bert",
    keys=KEYS,
    heads={
        "classify": HeadTable(
            "BertForSequenceClassification",
            {"dense": "@pooler.dense", "output": "classifier"},
            lambda config: classify_from_hf(config, hidden="tanh", dropout_before_hidden=False),
        ),
        "tag": HeadTable("BertForTokenClassification", {"output": "classifier"}, tag_from_hf),
        "lm": HeadTable("BertForMaskedLM", _LM, lm_from_hf),
        "pretrain": HeadTable(
            "BertForPreTraining",
            {f"lm.{ours}": theirs for ours, theirs in _LM.items()}
            | {"pool": "@pooler.dense", "pair": "cls.seq_relationship"},
            pretrain_from_hf,
        ),
        "span": HeadTable("BertForQuestionAnswering", {"output": "qa_outputs"}, lambda config: SpanConfig()),
        "choice": HeadTable(
            "BertForMultipleChoice",
            {"dense": "@pooler.dense", "output": "classifier"},
            lambda config: choice_from_hf(config, hidden="tanh"),
        ),
        "pool": HeadTable("BertModel", {"dense": "@pooler.dense"}, lambda config: PoolConfig()),
    },
    from_hf=encoder_from_hf,
    to_hf=encoder_to_hf,
    bare="BertModel",
    presets={
        "bert_mini": _SMALL
        | {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
        "bert_small": _SMALL
        | {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 2048},
        "bert_base": _SMALL | _BASE,
        "spanbert_base": _SMALL | _BASE | {"vocab_size": 28996},
        "spanbert_large": _SMALL
        | {"vocab_size": 28996, "hidden_size": 1024, "num_hidden_layers": 24}
        | {"num_attention_heads": 16, "intermediate_size": 4096},
    },
)

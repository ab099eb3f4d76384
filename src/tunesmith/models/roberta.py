"""RoBERTa: BERT's encoder; positions begin behind the padding row, and the classifier has its own hidden layer.

Paper: RoBERTa (arXiv:1907.11692).
"""

from tunesmith.models import Family, Foreign, HeadTable, Stacks
from tunesmith.models._encoder import (
    KEYS,
    choice_from_hf,
    classify_from_hf,
    encoder_from_hf,
    encoder_to_hf,
    lm_from_hf,
    tag_from_hf,
)
from tunesmith.models._fields import need
from tunesmith.nn.head.pool import PoolConfig
from tunesmith.nn.head.span import SpanConfig


def _from_hf(config: Foreign) -> Stacks:
    # Row pad_token_id of the position table belongs to padding, real positions begin behind it.
    return encoder_from_hf(config, offset=need({"pad_token_id": 1, **config}, "pad_token_id", least=0) + 1)


FAMILY = Family(
    name="roberta",
    prefix="roberta",
    keys=KEYS,
    heads={
        "classify": HeadTable(
            "RobertaForSequenceClassification",
            {"dense": "classifier.dense", "output": "classifier.out_proj"},
            lambda config: classify_from_hf(config, hidden="tanh", dropout_before_hidden=True),
        ),
        "tag": HeadTable("RobertaForTokenClassification", {"output": "classifier"}, tag_from_hf),
        "lm": HeadTable(
            "RobertaForMaskedLM",
            {
                "dense": "lm_head.dense",
                "norm": "lm_head.layer_norm",
                "bias": "lm_head.bias",
                "table": "lm_head.decoder",
            },
            lambda config: lm_from_hf(config, activation="gelu"),
        ),
        "span": HeadTable("RobertaForQuestionAnswering", {"output": "qa_outputs"}, lambda config: SpanConfig()),
        "choice": HeadTable(
            "RobertaForMultipleChoice",
            {"dense": "@pooler.dense", "output": "classifier"},
            lambda config: choice_from_hf(config, hidden="tanh", rate=config.get("hidden_dropout_prob", 0.1)),
        ),
        "pool": HeadTable("RobertaModel", {"dense": "@pooler.dense"}, lambda config: PoolConfig()),
    },
    from_hf=_from_hf,
    to_hf=encoder_to_hf,
    bare="RobertaModel",
    pad_counts=False,
    presets={
        "roberta_base": {
            "vocab_size": 50265,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "layer_norm_eps": 1e-5,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
    },
)

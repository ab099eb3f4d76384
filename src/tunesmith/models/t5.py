"""T5 1.0 and 1.1: encoder-decoder with pre-norm, unscaled attention and relative positions; no biases.

Papers: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (arXiv:1910.10683); GLU
Variants Improve Transformer (arXiv:2002.05202) for the gated layers of 1.1.

Differs: whether the output matrix is the token table (1.0) or one of its own (1.1) is read off the tensors.
transformers 5.23 calls every model tied and reads ``tie_word_embeddings`` as "scale the output by d_model^-0.5".
"""

from collections.abc import Mapping
from typing import Any, Literal

from tunesmith.base.shapes import Tensor
from tunesmith.models import Family, Foreign, HeadTable, Stacks
from tunesmith.models._activations import GATED, PLAIN, name_of
from tunesmith.models._encoder import classify_from_hf
from tunesmith.models._encoder_decoder import one_table, untied
from tunesmith.models._fields import look_up, need, num_labels, number, refuse, settings
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.span import SpanConfig
from tunesmith.nn.head.tag import TagConfig
from tunesmith.nn.norm.rms_norm import RMSNormConfig
from tunesmith.nn.position.t5_bias import T5BiasConfig
from tunesmith.nn.transformer import TransformerConfig

_NO_LIMIT = 1_000_000  # tokens: relative positions have no end


def _keys(stack: str, *, last: int) -> dict[str, str]:
    """Names in one stack; the feed-forward layer is the block's ``last`` layer."""
    block = f"@{stack}.block.{{i}}.layer"
    ours = f"{stack}.blocks.{{i}}"
    keys = {
        f"{stack}.embeddings.position": f"@{stack}.block.0.layer.0.SelfAttention.relative_attention_bias",
        f"{stack}.norm": f"@{stack}.final_layer_norm",
        f"{ours}.attention_norm": f"{block}.0.layer_norm",
        f"{ours}.feedforward_norm": f"{block}.{last}.layer_norm",
        f"{ours}.feedforward.down": f"{block}.{last}.DenseReluDense.wo",
    }
    sites = [("attention", "0.SelfAttention"), ("cross_attention", "1.EncDecAttention")][:last]
    for site, theirs in sites:
        for letter, part in zip("qkvo", ("query", "key", "value", "output"), strict=True):
            keys[f"{ours}.{site}.{part}"] = f"{block}.{theirs}.{letter}"
    return keys | ({f"{ours}.cross_norm": f"{block}.1.layer_norm"} if last == 2 else {})


def _keys_of(stacks: Stacks) -> dict[str, str]:
    """1.0 has one map up, ``wi``; 1.1 has a gate, ``wi_0``, and ``wi_1``."""
    assert stacks.encoder is not None
    gated = stacks.encoder.feedforward in GATED.values()
    keys = {}
    for stack, last in (("encoder", 1), ("decoder", 2)):
        ours, theirs = f"{stack}.blocks.{{i}}.feedforward", f"@{stack}.block.{{i}}.layer.{last}.DenseReluDense"
        keys |= {f"{ours}.gate": f"{theirs}.wi_0", f"{ours}.up": f"{theirs}.wi_1"} if gated else {}
        keys |= {} if gated else {f"{ours}.up": f"{theirs}.wi"}
    return keys


def _stack_from_hf(config: Foreign, stack: Literal["encoder", "decoder"]) -> TransformerConfig:
    width, rate = need(config, "d_model"), config.get("dropout_rate", 0.1)
    count = (
        "num_decoder_layers" if stack == "decoder" and config.get("num_decoder_layers") is not None else "num_layers"
    )
    gate, _, word = str(config.get("feed_forward_proj", "relu")).rpartition("-")
    word = "gelu_new" if gate and word == "gelu" else word
    table = GATED if config.get("is_gated_act", gate == "gated") else PLAIN
    fields = {
        "vocab_size": need(config, "vocab_size"),
        "d_model": width,
        "d_embedding": width,
        "num_layers": need(config, count),
        "num_heads": need(config, "num_heads"),
        "d_head": need(config, "d_kv"),
        "d_ff": need(config, "d_ff"),
        "max_positions": _NO_LIMIT,
        "num_segments": 0,
        "causal": stack == "decoder",
        "cross_attention": stack == "decoder",
        "order": "pre",
        "biases": "none",
        "feedforward_bias": False,
        "embedding_norm": False,
        "attention_scale": 1.0,
        "dropout": rate,
        "attention_dropout": rate,
        "feedforward_dropout": rate,
        "final_dropout": rate,
        "initial_std": number(config, "initializer_factor", default=1.0) * width**-0.5,
        "position": settings(
            T5BiasConfig,
            {
                "num_buckets": config.get("relative_attention_num_buckets", 32),
                "max_distance": config.get("relative_attention_max_distance", 128),
            },
            names={
                "num_buckets": "relative_attention_num_buckets",
                "max_distance": "relative_attention_max_distance",
            },
        ),
        "feedforward": look_up(table, {"dense_act_fn": word, **config}, "dense_act_fn"),
        "norm": settings(
            RMSNormConfig, {"eps": config.get("layer_norm_epsilon", 1e-6)}, names={"eps": "layer_norm_epsilon"}
        ),
    }
    names = {"num_layers": count, "d_head": "d_kv", "initial_std": "initializer_factor"}
    rates = ("dropout", "attention_dropout", "feedforward_dropout", "final_dropout")
    return settings(TransformerConfig, fields, names | dict.fromkeys(rates, "dropout_rate"))


def _from_hf(config: Foreign) -> Stacks:
    refuse(config, is_decoder=False)
    return Stacks(_stack_from_hf(config, "encoder"), _stack_from_hf(config, "decoder"))


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    config = stacks.encoder
    assert config is not None
    assert isinstance(config.position, T5BiasConfig)
    assert isinstance(config.norm, RMSNormConfig)
    gated = config.feedforward in GATED.values()
    word = name_of(config.feedforward, GATED if gated else PLAIN)
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.head_width,
        "d_ff": config.d_ff,
        "num_layers": config.num_layers,
        **({} if stacks.decoder is None else {"num_decoder_layers": stacks.decoder.num_layers}),
        "num_heads": config.num_heads,
        "feed_forward_proj": f"gated-{word.removesuffix('_new')}" if gated else word,
        "is_gated_act": gated,
        "dense_act_fn": word,
        "dropout_rate": config.dropout,
        "layer_norm_epsilon": config.norm.eps,
        "relative_attention_num_buckets": config.position.num_buckets,
        "relative_attention_max_distance": config.position.max_distance,
    }


def _settle(tensors: Mapping[str, Tensor], config: Foreign) -> dict[str, Any]:
    """Tied or not by the tensors, scaled or not by the flag, as transformers 5.23 reads it."""
    flag = config.get("tie_word_embeddings") is not False
    differs = untied(tensors)
    if differs is None:  # without a head to compare: tied, but for a bare model, which may get one later
        differs = not flag and "T5ForConditionalGeneration" not in (config.get("architectures") or [])
    start = config.get("decoder_start_token_id")
    return {
        "tie_word_embeddings": not differs,
        "scale_decoder_outputs": config.get("scale_decoder_outputs", flag),
        "decoder_start_token_id": config.get("pad_token_id", 0) if start is None else start,
    }


def _lm(config: Foreign) -> LMConfig:
    tied = config.get("tie_word_embeddings") is not False
    scaled = config.get("scale_decoder_outputs", tied)
    return LMConfig(
        activation=None,
        bias=False,
        scale=need(config, "d_model") ** -0.5 if scaled else 1.0,
        table="tied" if tied else "own",
    )


def _stds(stacks: Stacks) -> dict[str, float]:
    config = stacks.encoder
    assert config is not None
    factor = config.initial_std * config.d_model**0.5
    inner = config.num_heads * config.head_width
    return {
        "embeddings.tokens.weight": factor,
        "head.table.weight": factor * config.d_model**-0.5,  # transformers: 1, which makes a first loss of 110
        "position.weight": factor * config.d_model**-0.5,
        "attention.query.weight": factor * (config.d_model * config.head_width) ** -0.5,
        "attention.output.weight": factor * inner**-0.5,
        "feedforward.down.weight": factor * config.d_ff**-0.5,
    }


_SMALL = {
    "vocab_size": 32128,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "is_encoder_decoder": True,
}

FAMILY = Family(
    name="t5",
    prefix="",
    keys={"encoder.embeddings.tokens": "@shared", **_keys("encoder", last=1), **_keys("decoder", last=2)},
    heads={
        "lm": HeadTable("T5ForConditionalGeneration", {"table": "lm_head"}, _lm),
        "classify": HeadTable(
            "T5ForSequenceClassification",
            {"dense": "classification_head.dense", "output": "classification_head.out_proj"},
            lambda config: classify_from_hf(
                {"classifier_dropout": 0.0, **config}, hidden="tanh", dropout_before_hidden=True
            ).model_copy(update={"pooling": "last"}),
            prefix="transformer",
        ),
        "tag": HeadTable(
            "T5ForTokenClassification",
            {"output": "classifier"},
            lambda config: settings(
                TagConfig,
                {"num_labels": num_labels(config), "dropout": config.get("classifier_dropout", 0.0)},
                names={"dropout": "classifier_dropout"},
            ),
            prefix="transformer",
        ),
        "span": HeadTable("T5ForQuestionAnswering", {"output": "qa_outputs"}, lambda config: SpanConfig()),
    },
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="T5Model",
    encoder_only=("T5EncoderModel", "T5ForTokenClassification"),
    keys_of=_keys_of,
    stds=_stds,
    junk=("EncDecAttention.relative_attention_bias.weight",),
    settle=_settle,
    clean=one_table,
    presets={
        "t5_mini": _SMALL
        | {"d_model": 384, "d_kv": 32, "d_ff": 1536, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 8},
        "t5_small": _SMALL
        | {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8},
        "t5_base": _SMALL
        | {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12},
        "t5_v1_1_small": _SMALL
        | {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}
        | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    },
)

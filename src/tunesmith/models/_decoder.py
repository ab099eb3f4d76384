"""What the decoders share: heads of all, and the keys and fields of config.json of LLaMA and its kin."""

import functools
from typing import Any

from tunesmith.base.errors import CheckpointError
from tunesmith.models import Foreign, HeadTable, Stacks
from tunesmith.models._activations import GATED, name_of
from tunesmith.models._fields import flag, look_up, may, need, num_labels, problem, refuse, settings
from tunesmith.models._rope import rope_from_hf, rope_to_hf
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.span import SpanConfig
from tunesmith.nn.head.tag import TagConfig
from tunesmith.nn.norm.rms_norm import RMSNormConfig
from tunesmith.nn.transformer import LayerConfig, TransformerConfig

KEYS = {
    "decoder.embeddings.tokens": "@embed_tokens",
    "decoder.blocks.{i}.attention_norm": "@layers.{i}.input_layernorm",
    "decoder.blocks.{i}.attention.query": "@layers.{i}.self_attn.q_proj",
    "decoder.blocks.{i}.attention.key": "@layers.{i}.self_attn.k_proj",
    "decoder.blocks.{i}.attention.value": "@layers.{i}.self_attn.v_proj",
    "decoder.blocks.{i}.attention.output": "@layers.{i}.self_attn.o_proj",
    "decoder.blocks.{i}.feedforward_norm": "@layers.{i}.post_attention_layernorm",
    "decoder.blocks.{i}.feedforward.gate": "@layers.{i}.mlp.gate_proj",
    "decoder.blocks.{i}.feedforward.up": "@layers.{i}.mlp.up_proj",
    "decoder.blocks.{i}.feedforward.down": "@layers.{i}.mlp.down_proj",
    "decoder.norm": "@norm",
}
JUNK = ("rotary_emb.inv_freq",)

_FOREIGN = {
    "d_model": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "d_head": "head_dim",
    "d_ff": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "initial_std": "initializer_range",
    "eps": "rms_norm_eps",
}


def heads(
    name: str,
    *,
    lm: str = "ForCausalLM",
    tied: bool = False,
    tag: str = "score",
    dropout: float = 0.1,
    span_prefix: str | None = None,
) -> dict[str, HeadTable]:
    """The heads of a decoder.

    Args:
        name: Start of the names of its transformers classes.
        lm: End of the name of its language model.
        tied: Whether its output matrix is the token table where config.json does not say.
        tag: Foreign name of the tagging head's map.
        dropout: That head's dropout where config.json does not say.
        span_prefix: The base prefix inside the span class, where it is another.
    """
    return {
        "lm": HeadTable(name + lm, {"table": "lm_head"}, functools.partial(_lm_from_hf, tied=tied)),
        "classify": HeadTable(f"{name}ForSequenceClassification", {"output": "score"}, _classify_from_hf),
        "tag": HeadTable(
            f"{name}ForTokenClassification", {"output": tag}, functools.partial(_tag_from_hf, dropout=dropout)
        ),
        "span": HeadTable(
            f"{name}ForQuestionAnswering", {"output": "qa_outputs"}, lambda config: SpanConfig(), span_prefix
        ),
    }


def decoder_from_hf(config: Foreign, **own: Any) -> Stacks:
    """Decoder settings of LLaMA and its kin from config.json.

    Args:
        config: The parsed file, with the family's defaults of what it may leave out.
        own: Settings that the family has of its own.

    Raises:
        CheckpointError: A field is missing, has a wrong type, is out of range, or asks for what this family has not.
    """
    refuse(config, is_causal=True, add_cross_attention=False)
    width, num_heads = need(config, "hidden_size"), need(config, "num_attention_heads")
    d_head, kv = may(config, "head_dim"), may(config, "num_key_value_heads") or num_heads
    if d_head is None and width % num_heads:
        raise CheckpointError(f"config.json num_attention_heads: must divide hidden_size {width}, got {num_heads}")
    if num_heads % kv:
        raise CheckpointError(f"config.json num_key_value_heads: must divide {num_heads} heads, got {kv}")
    d_head, longest = d_head or width // num_heads, need(config, "max_position_embeddings")
    fields = {
        "vocab_size": need(config, "vocab_size"),
        "d_model": width,
        "d_embedding": width,
        "num_layers": need(config, "num_hidden_layers"),
        "num_heads": num_heads,
        "num_kv_heads": None if kv == num_heads else kv,
        "d_head": None if d_head * num_heads == width else d_head,
        "d_ff": need(config, "intermediate_size"),
        "max_positions": longest,
        "num_segments": 0,
        "causal": True,
        "order": "pre",
        "biases": "none",
        "feedforward_bias": False,
        "embedding_norm": False,
        "dropout": 0.0,
        "attention_dropout": config.get("attention_dropout") or 0.0,
        "initial_std": config.get("initializer_range", 0.02),
        "position": rope_from_hf(config, d_head=d_head, max_positions=longest),
        "feedforward": look_up(GATED, config, "hidden_act", default="silu"),
        "norm": settings(RMSNormConfig, {"eps": config.get("rms_norm_eps", 1e-6)}, _FOREIGN),
    }
    return Stacks(decoder=settings(TransformerConfig, fields | own, _FOREIGN))


def decoder_to_hf(stacks: Stacks) -> dict[str, Any]:
    """Fields of config.json from the decoder settings."""
    config = decoder(stacks)
    assert isinstance(config.norm, RMSNormConfig)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.d_ff,
        "hidden_act": name_of(config.feedforward, GATED),
        "attention_dropout": config.attention_dropout,
        "max_position_embeddings": config.max_positions,
        "initializer_range": config.initial_std,
        "rms_norm_eps": config.norm.eps,
        **rope_to_hf(config.position, d_head=config.head_width, max_positions=config.max_positions),
    }


def layers_from_hf(config: Foreign) -> tuple[LayerConfig, ...]:
    """Qwen's layers, with and without a window, from ``layer_types`` or ``max_window_layers``.

    Raises:
        CheckpointError: A field is wrong, or layers have a window without a size.
    """
    count = need(config, "num_hidden_layers")
    window = window_of(config) if flag(config, "use_sliding_window") else None
    kinds = config.get("layer_types")
    if kinds is None:
        first = need({"max_window_layers": 28, **config}, "max_window_layers", least=0)
        kinds = ["sliding_attention" if window is not None and i >= first else "full_attention" for i in range(count)]
    if (
        not isinstance(kinds, list)
        or len(kinds) != count
        or {*map(str, kinds)} - {"full_attention", "sliding_attention"}
    ):
        raise CheckpointError(
            f"config.json layer_types: must be full_attention or sliding_attention for each of {count} layers, "
            f"got {kinds!r}"
        )
    if window is None and "sliding_attention" in kinds:
        raise CheckpointError("config.json layer_types: has sliding_attention, but use_sliding_window is not true")
    layers = tuple(LayerConfig(window=window if kind == "sliding_attention" else None) for kind in kinds)
    return layers if len(set(kinds)) > 1 else layers[:1]


def layers_to_hf(stacks: Stacks) -> dict[str, Any]:
    """Fields of Qwen's layers."""
    config = decoder(stacks)
    windows = [config.layers[i % len(config.layers)].window for i in range(config.num_layers)]
    sizes = {window for window in windows if window is not None}
    kinds = ["full_attention" if window is None else "sliding_attention" for window in windows]
    if not sizes:
        return {"use_sliding_window": False, "layer_types": kinds}
    assert len(sizes) == 1, "one window for all layers that have one"
    return {"use_sliding_window": True, "layer_types": kinds, "sliding_window": sizes.pop() + 1}


def window_of(config: Foreign) -> int | None:
    """Tokens before its own that a token sees; ``sliding_window`` counts its own as well."""
    size = may({"sliding_window": 4096, **config}, "sliding_window")
    return None if size is None else size - 1


def decoder(stacks: Stacks) -> TransformerConfig:
    """The decoder's settings."""
    assert stacks.decoder is not None
    return stacks.decoder


def _lm_from_hf(config: Foreign, *, tied: bool) -> LMConfig:
    own = not flag(config, "tie_word_embeddings", default=tied)
    return LMConfig(activation=None, bias=False, table="own" if own else "tied")


def _classify_from_hf(config: Foreign) -> ClassifyConfig:
    fields = {"num_labels": num_labels(config), "problem": problem(config), "pooling": "last", "bias": False}
    return settings(ClassifyConfig, {**fields, "dropout": 0.0}, {})


def _tag_from_hf(config: Foreign, *, dropout: float) -> TagConfig:
    refuse(config, token_classification_bias=True)
    rates = [rate for rate in (config.get("classifier_dropout"), config.get("hidden_dropout")) if rate is not None]
    fields = {"num_labels": num_labels(config), "dropout": rates[0] if rates else dropout}
    return settings(TagConfig, fields, {"dropout": "classifier_dropout"})

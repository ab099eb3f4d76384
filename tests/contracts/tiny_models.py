"""A tiny random transformers model of every family, as a user's checkpoint would be."""

from pathlib import Path

import torch

from tunesmith.base import choices
from tunesmith.models._checkpoint import save
from tunesmith.models.model import Model, ModelConfig

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
ENCODER = {**SIZES, "max_position_embeddings": 66}
DECODER = {**SIZES, "max_position_embeddings": 64, "num_key_value_heads": 2}
BLOCK = {"n_layer": 2, "n_head": 4}
BART = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
BART |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_model": 32, "max_position_embeddings": 64}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
T5 |= {"decoder_start_token_id": 0}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "conv_kernel_size": 3}
PARTS = {"position": "alibi", "feedforward": "swiglu", "norm": "rms_norm"}
MODELS = {  # family: class of transformers, fields of its config
    "bert": ("BertModel", ENCODER),
    "roberta": ("RobertaForMaskedLM", {**ENCODER, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "electra": ("ElectraForPreTraining", {**ENCODER, "embedding_size": 16}),
    "albert": ("AlbertModel", {**ENCODER, "embedding_size": 16}),
    "deberta_v2": ("DebertaV2Model", {**ENCODER, **DEBERTA, "norm_rel_ebd": "layer_norm", "share_att_key": True}),
    "modernbert": ("ModernBertForMaskedLM", {**ENCODER, "local_attention": 10, "cls_token_id": 0, "sep_token_id": 2}),
    "xlnet": ("XLNetModel", {"d_model": 32, "d_inner": 64, **BLOCK}),
    "bart": ("BartModel", BART),
    "t5": ("T5ForConditionalGeneration", T5),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_positions": 64, **BLOCK}),
    "bloom": ("BloomForCausalLM", {"hidden_size": 32, **BLOCK}),
    "llama": ("LlamaForCausalLM", {**DECODER, "attention_bias": True}),
    "mistral": ("MistralModel", {**DECODER, "sliding_window": 16}),
    "qwen2": ("Qwen2ForCausalLM", DECODER),
    "qwen3": ("Qwen3ForCausalLM", {**DECODER, "head_dim": 8}),
}


def make_model(family: str, folder: Path, *, vocab_size: int, **fields) -> Path:
    """Write a tiny random model into a folder.

    Args:
        family: A file of ``models``.
        folder: Where to.
        vocab_size: Tokens.
        fields: Further fields of its config.
    """
    torch.manual_seed(0)
    if family == "custom":
        return _custom(folder, vocab_size)
    import transformers

    name, own = MODELS[family]
    kind = getattr(transformers, name)
    model = kind(kind.config_class(vocab_size=vocab_size, **(own | fields)))
    perturb(model)
    model.save_pretrained(folder)
    return folder


def perturb(model: torch.nn.Module) -> None:
    """Biases and norms too: nothing may hide behind a zero or a one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)


def _custom(folder: Path, vocab_size: int) -> Path:
    from toys import stack

    encoder = stack(vocab_size=vocab_size, d_model=32, d_embedding=32, num_heads=4, d_ff=64, **PARTS)
    model = Model(ModelConfig(family="custom", encoder=encoder))
    perturb(model)
    save(model, folder)
    return folder


def families() -> list[str]:
    """All families; a new file of ``models`` needs a tiny model here."""
    return choices.names("model")

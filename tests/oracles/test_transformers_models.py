"""transformers is the oracle: tiny random models of every family, head and several shapes, both ways."""

import json

import numpy as np
import pytest
import torch
import transformers
from parity import CHECKED
from transformers import BertConfig, ElectraConfig, RobertaConfig

from tunesmith.models._checkpoint import load, save

SHAPES = {
    "plain": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "odd heads": {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 50},
    "one layer": {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "hidden_act": "gelu_new",
    },
}
FAMILIES = {
    "Bert": (BertConfig, {"pad_token_id": 0, "type_vocab_size": 2}),
    "Roberta": (RobertaConfig, {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "Electra": (ElectraConfig, {"pad_token_id": 0, "type_vocab_size": 2, "embedding_size": 20}),
}
HEADS = ["Model", "ForSequenceClassification", "ForTokenClassification", "ForMaskedLM"]


def make(family, shape, head, **extra):
    kind, fields = FAMILIES[family]
    config = kind(vocab_size=99, max_position_embeddings=40, num_labels=3, **{**fields, **SHAPES[shape], **extra})
    torch.manual_seed(0)
    model = getattr(transformers, family + head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too: nothing may hide behind a zero or a one
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.tie_weights()
    return model


def batch(config, *, rows=7, width=23, seed=0):
    stream = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, config.vocab_size, (rows, width), generator=stream)
    lengths = torch.randint(1, width + 1, (rows,), generator=stream)
    lengths[0] = width
    mask = (torch.arange(width) < lengths[:, None]).long()
    ids = torch.where(mask.bool(), ids, config.pad_token_id)
    segments = torch.randint(0, config.type_vocab_size, ids.shape, generator=stream)
    return ids, mask, segments


def assert_equal(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, theirs.abs().max().item()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_gradients_and_files_are_equal(family, head, shape, tmp_path):
    CHECKED.append(family + head)
    theirs = make(family, shape, head)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert ours.fresh == ()
    ids, mask, segments = batch(theirs.config)
    expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=segments, output_hidden_states=True)
    output = ours(ids, attention_mask=mask, token_type_ids=segments)
    real = mask.bool()
    assert_equal(output.hidden[real], expected.hidden_states[-1][real])
    assert (output.hidden[~real] == 0).all()
    if head == "Model":
        got, want = output.hidden[real], expected.last_hidden_state[real]
        if family != "Electra":
            assert_equal(output.pooled, expected.pooler_output)
            got, want = (
                torch.cat([got.flatten(), output.pooled.flatten()]),
                torch.cat([want.flatten(), expected.pooler_output.flatten()]),
            )
    elif head == "ForSequenceClassification":
        got, want = output.logits, expected.logits
        assert_equal(got, want)
    else:
        got, want = output.logits[real], expected.logits[real]
        assert_equal(got, want)
    weight = torch.linspace(-1, 1, got.numel())
    (got.flatten() @ weight).backward()
    (want.flatten() @ weight).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    save(ours, tmp_path / "ours")
    for ours_name, gradient in gradients.items():
        theirs_name = name_of(ours, ours_name, bare=head == "Model")
        reference = dict(theirs.named_parameters())[theirs_name].grad
        if reference is None:  # transformers trains no such part
            assert gradient is None or not gradient.any()
            continue
        torch.testing.assert_close(gradient, reference, rtol=0, atol=1e-4 * max(reference.abs().max().item(), 1e-3))

    again, report = getattr(transformers, family + head).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def name_of(model, name, *, bare):
    from tunesmith.models._keys import foreign_name, with_prefix

    head = model.config.head.choice_name() if model.config.head else None
    return with_prefix(foreign_name(name, model.family, head), model.family, bare=bare)


@pytest.mark.parametrize("family", FAMILIES)
def test_left_padding_and_given_positions(family, tmp_path):
    theirs = make(family, "plain", "Model")
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    ids, mask, _ = batch(theirs.config)
    ids, mask = ids.flip(1), mask.flip(1)
    real = mask.bool()
    assert_equal(ours(ids, attention_mask=mask).hidden[real], theirs(input_ids=ids, attention_mask=mask)[0][real])
    positions = torch.arange(ids.shape[1]).flip(0)[None].expand(ids.shape) + 2
    assert_equal(
        ours(ids, attention_mask=mask, position_ids=positions if family != "Roberta" else positions - 2).hidden[real],
        theirs(input_ids=ids, attention_mask=mask, position_ids=positions)[0][real],
    )


def test_inputs_embeds(tmp_path):
    theirs = make("Bert", "plain", "ForSequenceClassification")
    theirs.save_pretrained(tmp_path)
    vectors = torch.randn(3, 9, 32)
    assert_equal(load(tmp_path)(inputs_embeds=vectors).logits, theirs(inputs_embeds=vectors).logits)


def test_an_untied_head_keeps_its_own_table(tmp_path):
    theirs = make("Bert", "plain", "ForMaskedLM", tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    ids, mask, _ = batch(theirs.config)
    real = mask.bool()
    want = theirs(ids, attention_mask=mask).logits[real]
    assert_equal(ours(ids, attention_mask=mask).logits[real], want)
    save(ours, tmp_path / "ours")
    again, report = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert_equal(again(ids, attention_mask=mask).logits[real], want)


def test_a_tied_head_that_the_file_repeats_is_stored_once(tmp_path):
    from tunesmith.models._folder import read_tensors, write_tensors

    theirs = make("Bert", "plain", "ForMaskedLM")
    theirs.save_pretrained(tmp_path)
    stored = read_tensors(tmp_path)
    table = theirs.bert.embeddings.word_embeddings.weight.detach().clone()
    bias = stored["cls.predictions.bias"].clone()
    write_tensors(tmp_path, stored | {"cls.predictions.decoder.weight": table, "cls.predictions.decoder.bias": bias})
    ours = load(tmp_path)
    assert ours.config.head.table == "tied"
    assert ours.aside == {}
    save(ours, tmp_path / "ours")
    assert set(read_tensors(tmp_path / "ours")) == set(stored)


def test_sharded_old_and_bare_files(tmp_path):
    theirs = make("Bert", "plain", "ForMaskedLM")
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    whole, shards = load(tmp_path / "whole"), load(tmp_path / "shards")
    for (name, a), (_, b) in zip(whole.named_parameters(), shards.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    save(whole, tmp_path / "again")
    from tunesmith.models._folder import read_tensors, write_tensors

    write_tensors(tmp_path / "again", read_tensors(tmp_path / "whole"), max_shard_bytes=20_000)
    (tmp_path / "again" / "model.safetensors").unlink()
    for (name, a), (_, b) in zip(whole.named_parameters(), load(tmp_path / "again").named_parameters(), strict=True):
        assert torch.equal(a, b), name

    old = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in read_tensors(tmp_path / "whole").items()
        if name.startswith("bert.")
    }
    old["embeddings.position_ids"] = torch.arange(40)[None]
    folder = tmp_path / "old"
    write_tensors(folder, old)
    config = json.loads((tmp_path / "whole" / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    bare = load(folder)
    assert bare.head is None
    assert torch.equal(bare.encoder.blocks[1].attention_norm.weight, whole.encoder.blocks[1].attention_norm.weight)


def test_heads_that_we_do_not_know_are_kept(tmp_path):
    theirs = make("Bert", "plain", "ForNextSentencePrediction")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    save(ours, tmp_path / "ours")
    again, report = transformers.BertForNextSentencePrediction.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(torch.equal(again.state_dict()[name], t) for name, t in theirs.state_dict().items())
    assert np.array_equal(ours.aside["cls.seq_relationship.weight"], theirs.cls.seq_relationship.weight.detach())

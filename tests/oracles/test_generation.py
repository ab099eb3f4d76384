"""Generation against transformers' own: fifty prompts of mixed lengths in one batch, token for token, in fp32.

The weights are scaled up, so that logits lie well apart: two computations of the same sum differ in its last bits, and
a near-tie (two tokens, or two beams, closer than that) may fall either way in either program. Where one of these tests
fails on a new machine in a single sequence, look for a near-tie first: in fp64 the two must still agree.
"""

import functools
import json

import pytest
import torch
import transformers
from parity import rows

from tunesmith.base.errors import SettingError
from tunesmith.models._checkpoint import load, save

VOCAB, COUNT, NEW = 99, 50, 14
LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
KINDS = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "llama": ("LlamaForCausalLM", LLAMA),
    "bloom": ("BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mistral": ("MistralForCausalLM", LLAMA | {"sliding_window": 5}),
    "qwen3": ("Qwen3ForCausalLM", LLAMA | {"head_dim": 10}),
    "bart": ("BartForConditionalGeneration", BART),
    "t5": ("T5ForConditionalGeneration", T5),
}
DECODERS = ("gpt2", "llama", "bloom", "mistral", "qwen3")
ENCODER_DECODERS = ("bart", "t5")


def reads(name):
    """The batch: left padding for decoders, right padding for what an encoder reads."""
    ids, mask = rows(VOCAB, count=COUNT, width=17, pad=0, low=5, left=name in DECODERS, seed=3)
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Both programs' model of a kind, with ends that really come, and at different lengths."""

    @functools.cache
    def make(name):
        kind = getattr(transformers, KINDS[name][0])
        fields = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        config = kind.config_class(**{**fields, **KINDS[name][1]})
        torch.manual_seed(1)
        theirs = kind(config).eval()
        with torch.no_grad():
            for parameter in theirs.parameters():
                spread = 0.3 if parameter.ndim > 1 else 0.1
                parameter.add_(torch.randn_like(parameter) * spread)
        theirs.tie_weights()
        theirs.generation_config.eos_token_id = None
        theirs.generation_config.forced_eos_token_id = None
        made = new_tokens(name, theirs.generate(**reads(name), max_new_tokens=NEW, do_sample=False))
        theirs.generation_config.eos_token_id = ends_of(made)
        folder = tmp_path_factory.mktemp(name)
        theirs.save_pretrained(folder)
        return load(folder), theirs

    return make


def new_tokens(name, sequences):
    return sequences[:, reads(name)["input_ids"].shape[1] if name in DECODERS else 1 :]


def ends_of(made):
    """Three tokens that end the sequences at the most different lengths."""
    firsts = {}
    for token in range(5, VOCAB):
        hits = (made == token).any(1)
        firsts[token] = set((made[hits] == token).int().argmax(1).tolist())
    return sorted(sorted(firsts, key=lambda token: -len(firsts[token]))[:3])


def both(pair, name, **settings):
    """The same tokens from both; gives them."""
    ours, theirs = pair
    given = reads(name)
    expected = theirs.generate(**given, **settings)
    found = ours.generate(**given, **settings)
    width = max(found.shape[1], expected.shape[1])
    num_beams = settings.get("num_beams", ours.generation.get("num_beams", 1))
    pad = ours.generation["eos_token_id"][0] if num_beams > 1 else 0  # what theirs does where padding is token 0
    found, expected = (torch.nn.functional.pad(x, (0, width - x.shape[1]), value=pad) for x in (found, expected))
    wrong = (found != expected).any(1).nonzero().flatten().tolist()
    assert not wrong, f"sequences {wrong}: {found[wrong[0]].tolist()} but {expected[wrong[0]].tolist()}"
    return new_tokens(name, found)


def lengths(made):
    return (made != 0).sum(1)


@pytest.mark.parametrize("name", KINDS)
def test_greedy(name, pairs):
    made = both(pairs(name), name, max_new_tokens=NEW)
    assert len(set(lengths(made).tolist())) >= 4, "they must end at different lengths"
    assert len({tuple(row) for row in made.tolist()}) > COUNT // 6, "and not be the same"


BEAMS = [(False, 1.0), (True, 2.5), ("never", 1.0), (False, 0.0), (True, -1.0)]  # early_stopping, length_penalty
BEAM_CASES = [(name, *case) for name in KINDS for case in (BEAMS if name in ("llama", "t5") else BEAMS[:2])]


@pytest.mark.parametrize(("name", "early_stopping", "length_penalty"), BEAM_CASES)
def test_beams(name, early_stopping, length_penalty, pairs):
    settings = {"early_stopping": early_stopping, "length_penalty": length_penalty}
    made = both(pairs(name), name, max_new_tokens=NEW, num_beams=4, **settings)
    ends = pairs(name)[0].generation["eos_token_id"]
    assert len(set(torch.isin(made, torch.tensor(ends)).int().argmax(1).tolist())) >= 3, "different lengths"


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_several_beams_returned(name, pairs):
    made = both(pairs(name), name, max_new_tokens=NEW, num_beams=4, num_return_sequences=3)
    assert len(made) == 3 * COUNT
    assert not torch.equal(made[0], made[1])


ADJUSTED = {
    "min_new_tokens": {"min_new_tokens": 6},
    "repetition_penalty": {"repetition_penalty": 1.7},
    "a reward for repetition": {"repetition_penalty": 0.6},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "forced_eos": {"forced_eos_token_id": 7},
    "several forced ends": {"forced_eos_token_id": [7, 9]},
    "forced_bos": {"forced_bos_token_id": 8},
    "all": {
        "min_new_tokens": 4,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 3,
        "forced_eos_token_id": 7,
        "forced_bos_token_id": 8,
    },
}


ADJUSTED_CASES = [(case, 1) for case in ADJUSTED] + [("repetition_penalty", 4), ("all", 4)]


@pytest.mark.parametrize(("case", "num_beams"), ADJUSTED_CASES)
@pytest.mark.parametrize("name", ["llama", "bart"])
def test_adjusted(name, case, num_beams, pairs):
    made = both(pairs(name), name, max_new_tokens=NEW, num_beams=num_beams, **ADJUSTED[case])
    if "forced_bos" in case and name in ENCODER_DECODERS:
        assert (made[:, 0] == 8).all()
    if case == "min_new_tokens":
        assert lengths(made).min() > 6
    if case != "forced_bos" or name in ENCODER_DECODERS:
        plain = new_tokens(name, pairs(name)[0].generate(**reads(name), max_new_tokens=NEW, num_beams=num_beams))
        assert plain.shape != made.shape or not torch.equal(plain, made), "the setting must do something"


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_one_prompt_alone_is_as_in_the_batch(name, pairs):
    ours, _ = pairs(name)
    given = reads(name)
    made = new_tokens(name, ours.generate(**given, max_new_tokens=NEW, num_beams=4))
    for row in range(0, COUNT, 7):
        ids = given["input_ids"][row][given["attention_mask"][row].bool()][None]
        alone = ours.generate(ids, max_new_tokens=NEW, num_beams=4)[0, (ids.shape[1] if name in DECODERS else 1) :]
        assert alone.tolist() == made[row, : len(alone)].tolist()
        assert len(set(made[row, len(alone) :].tolist())) <= 1, "only padding"


@pytest.mark.parametrize("name", KINDS)
def test_right_or_left_padding_is_the_same(name, pairs):
    ours, _ = pairs(name)
    given = reads(name)
    mask = given["attention_mask"].bool()
    other = torch.zeros_like(given["input_ids"])
    other[mask.flip(1)] = given["input_ids"][mask]
    one = ours.generate(**given, max_new_tokens=NEW)
    two = ours.generate(other, attention_mask=mask.flip(1).long(), max_new_tokens=NEW)
    assert torch.equal(new_tokens(name, one), new_tokens(name, two))
    if name in DECODERS:
        assert torch.equal(two[:, : other.shape[1]], other)


FILES = {
    "beams of its own": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True, "max_new_tokens": 9},
    "summaries": {"num_beams": 4, "max_length": 12, "min_length": 6, "no_repeat_ngram_size": 3, "early_stopping": True},
    "lengths that count prompts": {"max_length": 25, "min_length": 21},
    "several ends": {"eos_token_id": [5, 6, 7, 8], "max_new_tokens": 9},
    "penalty": {"repetition_penalty": 1.5, "min_new_tokens": 3, "max_new_tokens": 8},
    "forced": {"forced_bos_token_id": 11, "forced_eos_token_id": 12, "max_new_tokens": 8},
    "several sequences": {"num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 8},
    "nothing": {},
}


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default")  # what "nothing" asks for
@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_generation_config_is_read(name, case, pairs, tmp_path):
    fields = dict(FILES[case])
    if case == "summaries" and name == "gpt2":
        fields |= {"max_length": 28, "min_length": 20}
    _, theirs = pairs(name)
    theirs.save_pretrained(tmp_path)
    start = {} if name in DECODERS else {"decoder_start_token_id": 2 if name == "bart" else 0}
    ends = theirs.generation_config.eos_token_id
    written = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": ends, **start, **fields}
    (tmp_path / "generation_config.json").write_text(json.dumps(written))
    ours, again = load(tmp_path), type(theirs).from_pretrained(tmp_path)
    both((ours, again), name)
    save(ours, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "generation_config.json").read_text()) == written


def test_barts_forced_end_comes_from_its_config(tmp_path):
    """Old checkpoints have no generation_config.json: what BART's own config asks for holds."""
    config = transformers.BartConfig(vocab_size=VOCAB, **BART)
    torch.manual_seed(0)
    theirs = transformers.BartForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    theirs.tie_weights()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    content = json.loads((tmp_path / "config.json").read_text())
    content["forced_eos_token_id"] = 2
    (tmp_path / "config.json").write_text(json.dumps(content))
    ours, again = load(tmp_path), transformers.BartForConditionalGeneration.from_pretrained(tmp_path)
    ids, mask = rows(VOCAB, count=COUNT, width=17, pad=1, low=5, seed=3)
    for num_beams in (1, 4):
        given = {"max_new_tokens": 7, "num_beams": num_beams}
        found = ours.generate(ids, attention_mask=mask, **given)
        assert torch.equal(found, again.generate(ids, attention_mask=mask, **given))
        assert ((found == 2).sum(1) >= 2).all(), "the start and the forced end"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: must be at least 1, got 0"),
        ({"max_new_token": 3}, "max_new_token: there is no such setting"),
        ({"num_beams": 2, "do_sample": True}, "num_beams: beam search cannot be combined with do_sample"),
        ({"num_return_sequences": 2}, "num_return_sequences: must be at most num_beams"),
        ({"early_stopping": "soon", "num_beams": 2}, "early_stopping: must be"),
        ({"temperature": 0.0, "do_sample": True}, "temperature: must be above 0"),
        ({"do_sample": True, "seeds": (1, 2)}, "seeds: must be one for each of 50 sequences, got 2"),
        ({"max_length": 17}, "max_length: must be more than the 17 tokens"),
    ],
)
def test_bad_settings(settings, says, pairs):
    ours, _ = pairs("llama")
    with pytest.raises(SettingError, match=says):
        ours.generate(**reads("llama"), **settings)


def test_what_generation_config_asks_for_in_vain_is_refused(pairs, tmp_path):
    ours, _ = pairs("llama")
    save(ours, tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({**ours.generation, "bad_words_ids": [[5]]}))
    with pytest.raises(SettingError, match=r"generation_config\.json bad_words_ids: is not supported, got \[\[5\]\]"):
        load(tmp_path).generate(**reads("llama"))

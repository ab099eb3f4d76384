"""Texts from texts: the same alone and in a file, stop strings, streaming, bare decoders, encoder-decoders."""

import io
import json
import sys

import pytest
import torch

import tunesmith as ts
from tunesmith.cli.app import main

TEXTS = ["the film", "a", "it was the story of a song and the plot", "naïve ☃", "fine fine fine", "of", "and", "song"]
FP32 = {"train.precision": "fp32"}


def run(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments), "train.precision=fp32"])
    seen = capsys.readouterr()
    assert left.value.code == 0, seen.err
    return seen.out


def by_hand(model, text, **settings):
    encoding = model.tokenizer.backend.encode(text)
    ids = model.generate(torch.tensor([encoding.ids]), **settings)[0].tolist()
    if model.encoder is not None:
        return model.tokenizer.backend.decode(ids)
    return model.tokenizer.backend.decode(ids).removeprefix(text)


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_greedy_and_beams_are_the_models_own(name, speakers):
    model = ts.load(str(speakers[name]))
    for settings in ({"max_new_tokens": 8}, {"max_new_tokens": 8, "num_beams": 3}):
        made = ts.generate(model, TEXTS, settings=FP32, **settings)
        assert made == [by_hand(model, text, **settings) for text in TEXTS]
        assert len(set(made)) > 1


@pytest.mark.parametrize("name", ["llama", "bart", "bare"])
def test_a_text_is_the_same_alone_and_in_any_batch(name, speakers):
    sampled = {"do_sample": True, "seed": 5, "max_new_tokens": 8}
    whole = ts.generate(str(speakers[name]), TEXTS, settings=FP32, **sampled)
    small = ts.generate(str(speakers[name]), TEXTS, settings={**FP32, "train.micro_batch_tokens": 1}, **sampled)
    assert whole == small
    assert whole[:1] == ts.generate(str(speakers[name]), TEXTS[:1], settings=FP32, **sampled)
    assert whole != ts.generate(str(speakers[name]), TEXTS, settings=FP32, **{**sampled, "seed": 6})


def test_text_is_cut_before_a_stop_string(speakers):
    model = ts.load(str(speakers["llama"]))
    text = TEXTS[0]
    (plain,) = ts.generate(model, [text], settings=FP32, max_new_tokens=12)
    for size in (1, 3):
        stop = plain[4 : 4 + size]
        for beams in (1, 2):
            (whole,) = ts.generate(model, [text], settings=FP32, max_new_tokens=12, num_beams=beams)
            (found,) = ts.generate(model, [text], settings=FP32, max_new_tokens=12, num_beams=beams, stop=stop)
            assert found == whole.partition(stop)[0]
        pieces = []
        (found,) = ts.generate(model, [text], settings=FP32, max_new_tokens=12, stop=["§§", stop], hear=pieces.append)
        assert "".join(pieces) == found == plain.partition(stop)[0]


def test_streaming_says_what_the_text_is(speakers):
    for name in ("llama", "bart"):
        for text in TEXTS:
            pieces = []
            given = {"settings": FP32, "max_new_tokens": 20, "do_sample": True, "hear": pieces.append}
            (found,) = ts.generate(str(speakers[name]), [text], **given)
            assert "".join(pieces) == found
            assert len(pieces) > 1


def test_files_and_standard_input(speakers, tmp_path, capsys, monkeypatch):
    model = speakers["llama"]
    plain, rows = tmp_path / "p.txt", tmp_path / "p.jsonl"
    plain.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    lines = [json.dumps({("text", "source")[0]: text}) + "\n" for text in TEXTS]
    rows.write_text("".join(lines), encoding="utf-8")
    wanted = run(capsys, "generate", model, plain, "max_new_tokens=4")
    assert [set(json.loads(line)) for line in wanted.splitlines()] == [{"text"}] * len(TEXTS)
    assert run(capsys, "generate", model, rows, "max_new_tokens=4") == wanted
    for content in (plain.read_text(), "".join(lines)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(content))
        assert run(capsys, "generate", model, "-", "max_new_tokens=4") == wanted
    first = run(capsys, "generate", model, "--prompt", TEXTS[0], "max_new_tokens=4")
    assert first == wanted.splitlines()[0] + "\n"
    assert run(capsys, "generate", model, "max_new_tokens=4", "--prompt", TEXTS[0]) == first


def test_a_prompt_on_a_terminal_is_streamed(speakers, capsys, monkeypatch):
    (wanted,) = ts.generate(str(speakers["llama"]), ["the film"], settings=FP32, max_new_tokens=6)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run(capsys, "generate", speakers["llama"], "--prompt", "the film", "max_new_tokens=6") == wanted + "\n"


def test_bf16_and_the_model_is_left_as_it_was(speakers):
    model = ts.load(str(speakers["llama"]))
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert len(ts.generate(model, TEXTS, max_new_tokens=4, settings={"train.precision": "bf16"})) == len(TEXTS)
    assert all(p.requires_grad and torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert model(torch.tensor([[5, 6]])).logits.dtype == torch.float32


def test_another_head_keeps_how_the_checkpoint_generates(speakers):
    model = ts.load(str(speakers["bart"]))
    assert model.generation
    assert model.with_head(model.config.head).generation == model.generation

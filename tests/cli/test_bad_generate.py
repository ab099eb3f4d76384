"""Bad input of generate: one line that names the setting or the line, exit code 2."""

import io
import sys

import pytest

from tunesmith.models._checkpoint import load, save

SETTINGS = {
    "misspelt": (["max_new_token=3"], "max_new_token: no such setting: did you mean max_new_tokens?"),
    "unknown": (["epochs=3"], "epochs: no such setting"),
    "no tokens": (["max_new_tokens=0"], "max_new_tokens: must be greater than or equal to 1, got 0"),
    "tokens a word": (["max_new_tokens=many"], "max_new_tokens: must be a valid integer"),
    "temperature 0": (["temperature=0", "do_sample=true"], "temperature: must be greater than 0, got 0"),
    "infinite temperature": (["temperature=inf", "do_sample=true"], "temperature: must be a finite number"),
    "temperature of greedy": (["temperature=0.5"], "temperature: has no effect without sampling: set do_sample=true"),
    "seed of greedy": (["seed=1"], "seed: has no effect without sampling"),
    "negative top_k": (["top_k=-1"], "top_k: must be greater than or equal to 0"),
    "top_p above 1": (["top_p=1.5"], "top_p: must be less than or equal to 1"),
    "no beams": (["num_beams=0"], "num_beams: must be greater than or equal to 1"),
    "beams that are sampled": (["num_beams=2", "do_sample=true"], "num_beams: beam search cannot be combined"),
    "empty stop": (["stop="], "stop.0: "),
    "stop a number": (["stop=[5]"], "stop.0: "),
    "negative seed": (["seed=-1"], "seed: must be greater than or equal to 0"),
    "precision": (["train.precision=fp8"], "train.precision: must be 'auto', 'bf16' or 'fp32'"),
    "device": (["train.device=tpu"], "train.device: must be cpu, cuda or cuda:N, got 'tpu'"),
    "of training": (["train.epochs=3"], "train.epochs: no such setting"),
    "no setting": (["max_new_tokens"], "max_new_tokens: not a setting"),
    "tokenizer": (["tokenizer=nowhere"], "tokenizer: nowhere holds no tokenizer.json"),
    "no room": (["max_new_tokens=70"], "--prompt: its 2 tokens and max_new_tokens 70 are more than the model's 66"),
}
FILES = {
    "missing": ("p.txt", None, "p.txt: cannot read: No such file"),
    "empty": ("p.txt", "", "p.txt: holds no lines"),
    "not UTF-8": ("p.txt", b"\xff\xfe", "p.txt: cannot read: not UTF-8 text"),
    "empty JSON": ("p.jsonl", "", "p.jsonl"),
    "other columns": ("p.jsonl", '{"label": 1}\n', "has no column text or source: it has label"),
    "a cell that is no text": ("p.jsonl", '{"text": "a"}\n{"text": 5}\n', "p.jsonl line 2: has no prompt"),
    "damaged": ("p.jsonl", '{"text": "a"}\n{"text', "p.jsonl line 2"),
    "too long": ("p.txt", "a\n" + "x" * 100 + "\n", "p.txt line 2: has 100 tokens, but the model has 66 positions"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_bad_setting(desk, speakers, name):
    arguments, says = SETTINGS[name]
    line = desk.refused("generate", speakers["llama"], "--prompt", "the film", *arguments, says=says)
    assert line.startswith(says)


@pytest.mark.parametrize("name", FILES)
def test_bad_file(desk, speakers, name):
    file, content, says = FILES[name]
    path = desk.folder / file
    if content is not None:
        desk.write(file, content)
    desk.refused("generate", speakers["llama"], path, says=says)


@pytest.mark.parametrize(
    ("content", "says"), [("", "input: holds no lines"), ('{"text": "a"}\n{}\n', "input line 2: ")]
)
def test_bad_standard_input(desk, speakers, monkeypatch, content, says):
    monkeypatch.setattr(sys, "stdin", io.StringIO(content))
    desk.refused("generate", speakers["llama"], "-", says=says)


def test_neither_prompt_nor_file(desk, speakers):
    desk.refused("generate", speakers["llama"], says="tunesmith generate: give --prompt TEXT, a FILE of prompts, or -")
    desk.refused("generate", speakers["llama"], "max_new_tokens=3", says="tunesmith generate: give --prompt TEXT")
    desk.refused("generate", speakers["llama"], "p.txt", "--prompt", "a", says="p.txt: not a setting")


def test_a_decoder_without_the_weights_of_its_head(desk, speakers):
    model = load(str(speakers["llama"]))
    save(model.with_head(None), desk.folder / "bare")
    desk.refused("generate", desk.folder / "bare", "--prompt", "a", says="the checkpoint has no weights of an lm head")


def test_models_that_cannot(desk, runs):
    says = "bert cannot generate: it has no decoder with an lm head"
    desk.refused("generate", desk.checkpoint, "--prompt", "a", says=says)
    desk.refused("generate", runs("full"), "--prompt", "a", says=says)
    desk.refused("generate", desk.folder / "nowhere", "--prompt", "a", says="nowhere")
    desk.refused("generate", "gpt2_mini", "--prompt", "a", says="has no tokenizer files")

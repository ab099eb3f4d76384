"""Every pretraining recipe: it resolves, says what it is, and its model can be built, exported and fed."""

import functools
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from made_samples import FRAMES

from tunesmith.base import choices
from tunesmith.base.config import parse_assignments
from tunesmith.models._fresh import fresh_model
from tunesmith.models.model import Model
from tunesmith.objectives.rtd import RTDConfig
from tunesmith.recipes.pretrain_settings import PretrainSettings, pretrain_settings
from tunesmith.text.sample import Vocabulary
from tunesmith.text.tokenizer_style import STYLES

METHODS = {  # name: objective, input
    "bert": ("nsp", "segment_pair"),
    "roberta": ("mlm", "full_sentences"),
    "albert": ("sop", "segment_pair"),
    "electra": ("rtd", "segment_pair"),
    "deberta_v3": ("gdes", "full_sentences"),
    "bart": ("denoising", "doc_sentences"),
    "t5": ("span_corruption", "packed"),
    "mass": ("mass", "doc_sentences"),
    "xlnet": ("permuted_lm", "segment_pair"),
    "spanbert": ("sbo", "doc_sentences"),
    "gpt2": ("clm", "packed"),
    "llama": ("clm", "packed"),
    "modernbert": ("mlm", "packed"),
}
SIZES = ("mini", "small", "paper")
RECIPES = [f"{method}_{size}" for method in METHODS for size in SIZES]
PUBLISHED = {  # millions of parameters, as the papers or the model cards of the released weights have them
    "bert_paper": 110,
    "roberta_paper": 125,
    "albert_paper": 12,
    "electra_paper": 110,  # of the discriminator
    "electra_small": 13.5,  # "14 M" in the paper; the released file
    "deberta_v3_paper": 86 + 98,
    "bart_paper": 406,
    "t5_paper": 223,
    "t5_small": 60.5,
    "xlnet_paper": 361,
    "spanbert_paper": 335,  # BERT-Large, cased
    "gpt2_paper": 124,
    "llama_paper": 6738,
    "modernbert_paper": 149,
}
PAGE = (Path(__file__).parents[2] / "docs/pretraining.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^.*tunesmith pretrain (\w+) --corpus \S+ --out \S+(.*)$", PAGE, re.MULTILINE)
ROLES = {"pad": "pad_token", "begin": "bos_token", "end": "eos_token", "mask": "mask_token"}


def known(settings: PretrainSettings) -> Vocabulary:
    """What the tokenizer that a recipe trains would know, with tokens that mean nothing."""
    made = settings.vocabulary
    style, size = STYLES[made.style], made.vocab_size
    roles = {"bos_token": style.roles.get("cls_token"), "eos_token": style.roles.get("sep_token"), **style.roles}
    ids = {name: style.special.index(roles[role]) if roles.get(role) else None for name, role in ROLES.items()}
    special = np.arange(size) < len(style.special)
    return Vocabulary(
        size=size,
        special=special,
        begins_word=np.ones(size, dtype=bool),
        sentinels=tuple(range(size - 1, size - 1 - style.num_sentinels, -1)),
        sentence_ends=~special,
        frame=FRAMES["t5"],
        **ids,
    )


def hollow(settings: PretrainSettings) -> tuple[Model, str | None]:
    """The recipe's model with its head, without memory for its weights."""
    with torch.device("meta"):
        model, fault = fresh_model(
            settings.model.preset, changes=settings.model.changes(), vocabulary=known(settings), seed=0
        )
        head = settings.objective.head(model)
        return model if head is None else model.with_head(head), fault


@functools.cache
def built(recipe: str) -> tuple[Model, str | None]:
    return hollow(pretrain_settings(recipe))


def size_of(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_thirteen_methods_have_three_sizes_each():
    assert choices.names("recipe") == sorted(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_says_what_it_is(recipe):
    first, second, *rest = choices.path_of("recipe", recipe).read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"# [A-Z].*[^.]", first)
    assert choices.summary("recipe", recipe) == first[2:]
    words = {"mini": "in minutes", "small": "on one GPU in hours", "paper": "as published"}
    assert words[recipe.rpartition("_")[2]] in first
    assert second.startswith("# Paper: ")
    assert recipe.startswith("gpt2") or re.search(r"arXiv:\d{4}\.\d{5}", second)
    assert all(len(line) <= 120 for line in (first, second, *rest))


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_resolves_to_its_method(recipe):
    settings = pretrain_settings(recipe)
    method, _, size = recipe.rpartition("_")
    objective, cut = METHODS[method]
    assert settings.objective.choice_name() == objective
    others = {"gpt2_paper": "blocks", "llama_paper": "blocks", "electra_mini": "full_sentences"}
    assert settings.input.choice_name() == others.get(recipe, cut)
    if size == "mini":
        sizes = (settings.data.max_tokens, settings.train.batch_size, settings.vocabulary.vocab_size)
        decodes = method in ("bart", "t5", "mass", "gpt2", "llama")
        assert settings.train.minutes == 3.5  # the whole run stays below five
        letters = {"albert": (24, 64, 128), "electra": (24, 64, 128), "deberta_v3": (24, 64, 256)}
        known = {"modernbert": (128, 8, 1024), **letters}
        assert sizes == ((128, 16, 2048) if decodes else known.get(method, (32, 32, 1024)))


@pytest.mark.parametrize("method", METHODS)
def test_a_name_without_a_size_is_the_mini_one(method):
    assert pretrain_settings(method) == pretrain_settings(f"{method}_mini")


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_is_said_twice(recipe):
    """What a recipe sets for the model differs from its preset, so that a reader learns something from each line."""
    tree = tomllib.loads(choices.path_of("recipe", recipe).read_text(encoding="utf-8"))
    settings = pretrain_settings(recipe)
    with torch.device("meta"):
        plain, _ = fresh_model(settings.model.preset, changes={}, vocabulary=known(settings), seed=0)
    for name in set(tree["model"]) - {"preset"}:
        assert getattr(plain.config.trunk, name) != getattr(settings.model, name), name


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_model_can_be_built_and_exported(recipe):
    settings = pretrain_settings(recipe)
    model, fault = built(recipe)
    assert fault is None
    assert model.head is not None
    for stack in model.stacks:
        assert stack.config.vocab_size == settings.vocabulary.vocab_size
        assert settings.data.max_tokens <= stack.config.max_positions
        if recipe.endswith("_mini"):
            rates = ("dropout", "embedding_dropout", "attention_dropout", "feedforward_dropout", "final_dropout")
            assert not any(getattr(stack.config, rate) for rate in rates)
    if recipe in PUBLISHED:
        assert size_of(model) == pytest.approx(PUBLISHED[recipe] * 1e6, rel=0.02)
    elif recipe.endswith("_mini"):
        assert size_of(model) < 20e6


def test_mass_is_a_transformer_of_six_layers_and_six():
    d, f, words, places = 1024, 4096, 60_000, 512
    norm, attention, forward = 2 * d, 4 * (d * d + d), 2 * d * f + d + f
    encoder = attention + forward + 2 * norm
    decoder = 2 * attention + forward + 3 * norm
    tables = words * d + 2 * ((places + 2) * d + norm)
    assert size_of(built("mass_paper")[0]) == tables + 6 * (encoder + decoder)


@pytest.mark.parametrize("method", METHODS)
def test_its_objective_can_be_built(method):
    settings = pretrain_settings(method)
    vocabulary = known(settings)
    model, _ = fresh_model(settings.model.preset, changes=settings.model.changes(), vocabulary=vocabulary, seed=0)
    model = model.with_head(settings.objective.head(model))
    objective = settings.objective.build(model, vocabulary, max_tokens=settings.data.max_tokens, seed=0)
    assert objective.phases


def test_electras_generator_is_a_third_as_wide():
    settings = pretrain_settings("electra_paper")
    assert isinstance(settings.objective, RTDConfig)
    assert round(768 * settings.objective.width) == 256


@pytest.mark.parametrize(
    ("recipe", "steps", "batch", "rate", "warmup"),
    [  # as the papers print them
        ("bert_paper", 1_000_000, 256, 1e-4, 10_000),
        ("roberta_paper", 500_000, 8192, 6e-4, 24_000),
        ("albert_paper", 125_000, 4096, 1.76e-3, 3_125),
        ("electra_paper", 766_000, 256, 2e-4, 10_000),
        ("deberta_v3_paper", 500_000, 8192, 6e-4, 10_000),
        ("bart_paper", 500_000, 8000, 4e-4, 30_000),
        ("t5_paper", 1_000_000, 2048, 1e-2, 10_000),
        ("xlnet_paper", 500_000, 8192, 4e-4, 40_000),
        ("spanbert_paper", 2_400_000, 256, 1e-4, 10_000),
    ],
)
def test_published_pace(recipe, steps, batch, rate, warmup):
    train = pretrain_settings(recipe).train
    assert (train.max_steps, train.batch_size, train.learning_rate) == (steps, batch, rate)
    assert train.warmup * steps == pytest.approx(warmup, rel=0.005)


@pytest.mark.parametrize(
    ("recipe", "tokens", "warmup"),
    [("gpt2_paper", 300e9, 375e6), ("llama_paper", 1e12, 2_000 * 2048 * 2048), ("modernbert_paper", 1.719e12, 3e9)],
)
def test_published_budget(recipe, tokens, warmup):
    train = pretrain_settings(recipe).train
    assert train.tokens == tokens
    assert train.warmup * tokens == pytest.approx(warmup, rel=0.03)


@pytest.mark.parametrize(("recipe", "more"), COMMANDS)
def test_commands_of_the_page_resolve(recipe, more):
    settings = pretrain_settings(recipe, parse_assignments(more.split()))
    model, _ = hollow(settings)
    assert model.head is not None


def test_the_page_has_commands():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("method", METHODS)
def test_the_table_of_the_page_is_right(method):
    _, name, objective, cut, _, *sizes, _ = re.split(
        r" ?\| ?", re.search(rf"^\| `{method}` .*$", PAGE, re.MULTILINE)[0]
    )
    assert name == f"`{method}`"
    assert objective.startswith(f"`{METHODS[method][0]}`")
    assert cut.startswith(f"`{METHODS[method][1]}`")
    for size, said in zip(SIZES, sizes, strict=True):
        model, _ = built(f"{method}_{size}")
        layers = " + ".join(str(stack.config.num_layers) for stack in model.stacks)
        assert f"{layers} x {model.config.trunk.d_model}" in said

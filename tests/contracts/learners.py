"""A tiny learner for each objective: a fresh model, the objective, and samples for it."""

import numpy as np
import torch
from made_samples import FIRST, FRAMES, drawn, vocabulary

from tunesmith.base import choices
from tunesmith.models._fresh import fresh_model
from tunesmith.recipes.learner import Trainee
from tunesmith.text.sample import Sample

SIZE, UNKNOWN = 260, 5
SIZES = {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 48, "dropout": 0.0, "attention_dropout": 0.0}
LEARNERS = {  # name: preset, frame, objective
    "mlm": ("bert_mini", "xlnet", {"name": "mlm"}),
    "nsp": ("bert_mini", "xlnet", {"name": "nsp"}),
    "rtd": ("electra_small", "xlnet", {"name": "rtd", "width": 0.5}),
    "gdes": ("deberta_v3_mini", "xlnet", {"name": "gdes"}),
    "t5": ("t5_mini", "t5", {"name": "span_corruption"}),
    "bart": ("bart_mini", "bart", {"name": "denoising"}),
    "clm": ("gpt2_mini", "t5", {"name": "clm"}),
    "mixture": (
        "t5_mini",
        "t5",
        {"name": "mixture", "parts": [{"name": "span_corruption"}, {"name": "prefix_lm"}], "weights": [2.0, 1.0]},
    ),
}
ALL = LEARNERS | {
    "mlm and sbo": ("bert_mini", "xlnet", {"name": "mixture", "parts": ["mlm", "sbo"]}),
    "mlm and nsp": ("bert_mini", "xlnet", {"name": "mixture", "parts": ["mlm", "nsp"]}),
    "sbo": ("bert_mini", "xlnet", {"name": "sbo"}),
    "unilm": ("bert_mini", "xlnet", {"name": "unilm"}),
    "coupled gdes": ("deberta_v3_mini", "xlnet", {"name": "gdes", "training": "coupled"}),
    "permuted_lm": ("xlnet_mini", "xlnet", {"name": "permuted_lm"}),
    "mass": ("bart_mini", "bart", {"name": "mass"}),
    "prefix_lm": ("gpt2_mini", "t5", {"name": "prefix_lm"}),
}
PAIRS = ("nsp", "mlm", "unilm", "mlm and nsp")


def make_learner(name: str, *, dtype: torch.dtype = torch.float64, **changes) -> Trainee:
    """The model and its objective; the same each time."""
    preset, frame, fields = ALL[name]
    sizes = SIZES | ({"d_embedding": 16} if preset == "electra_small" else {}) | changes
    known = vocabulary(SIZE, frame=frame, word=3)
    model, fault = fresh_model(preset, changes=sizes, vocabulary=known, seed=0)
    assert fault is None or "position" in changes
    config = choices.choose("objective", fields)
    model = model.with_head(config.head(model), seed=0)
    objective = config.build(model, known, max_tokens=64, seed=0)
    trainee = Trainee(model, objective).to(dtype)
    model.compute_dtype = dtype
    return trainee


def make_samples(name: str, count: int = 12) -> list[Sample]:
    """Samples of different lengths."""
    frame = FRAMES[ALL[name][1]]
    draw = np.random.default_rng(1)
    found = []
    for number in range(count):
        texts = [[draw.integers(FIRST, SIZE, n) for n in draw.integers(3, 12, 2)] for _ in range(2)]
        found.append(frame.pair(*texts, label=number % 2) if name in PAIRS else frame.single(texts[0] + texts[1]))
    return found


def make_bare(name: str) -> list[Sample]:
    """Samples that ask for as little as can be: one text of nothing but [UNK], and one that is empty."""
    frame, unknown = FRAMES[ALL[name][1]], [np.full(3, UNKNOWN)]
    if name in PAIRS:
        return [frame.pair(unknown, unknown, label=0), frame.pair(unknown, [], label=1)]
    return [frame.single(unknown), frame.single([])]


def make_drawn(name: str, count: int = 12):
    """The samples with streams of their own, new at each call."""
    return drawn(*make_samples(name, count))

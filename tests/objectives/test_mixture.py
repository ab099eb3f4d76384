"""Mixtures: which sample serves which objective, terms and their weights, heads."""

from collections.abc import Mapping

import pytest
import scipy.stats
import torch
from corpora import FRAMES, corpus, drawn, keyed, vocabulary
from toys import toy

from tunesmith.base import choices
from tunesmith.base.config import build, toml_text
from tunesmith.base.errors import SettingError
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.pretrain import PretrainConfig
from tunesmith.objectives.clm import CLMConfig
from tunesmith.objectives.gdes import GDESConfig
from tunesmith.objectives.mixture import MixtureConfig
from tunesmith.objectives.mlm import MLMConfig
from tunesmith.objectives.nsp import NSPConfig
from tunesmith.objectives.rtd import RTDConfig
from tunesmith.objectives.sbo import SBOConfig
from tunesmith.text.inputs.segment_pair import SegmentPairConfig


def samples(count=None):
    found = SegmentPairConfig().samples(corpus(), FRAMES["bert"], max_tokens=32, stream=keyed())
    return [found[i] for i in range(count or len(found))]


def mixture(model, *parts, **settings):
    return MixtureConfig(parts=parts, **settings).build(model, vocabulary(), max_tokens=32, seed=0)


def test_terms_are_those_of_the_parts_over_their_own_samples(encoder):
    model = encoder("pretrain")
    few = samples(12)
    objective = mixture(model, MLMConfig(), NSPConfig(), MLMConfig(unit="span", rate=0.4), weights=(1, 2, 1))
    batch = objective.prepare(drawn(few))
    counts, found = objective.targets(batch), objective.loss(model, batch, phase="train")
    assert objective.phases[0].terms == {"mlm1.lm": 0.25, "nsp.lm": 0.5, "nsp.nsp": 0.5, "mlm2.lm": 0.25}
    assert list(counts) == list(found) == list(objective.phases[0].terms)
    assert batch.num_samples == 12
    assert batch.num_tokens == sum(map(len, few))
    for part, sub, label in zip(objective.parts.values(), batch.parts, objective.parts, strict=True):
        assert sub.num_samples > 0
        for term, total in part.loss(model, sub, phase="train").items():
            torch.testing.assert_close(found[f"{label}.{term}"], total)
            assert counts[f"{label}.{term}"] == part.targets(sub)[term] > 0


def test_each_sample_draws_by_weight_and_alone(encoder):
    objective = mixture(encoder(), MLMConfig(), MLMConfig(rate=0.3), weights=(3, 1))
    many = [one for epoch in range(40) for one in drawn(samples(), epoch=epoch)]
    batch = objective.prepare(many)
    low, high = scipy.stats.binom.interval(1 - 1e-6, len(many), 0.75)
    assert low <= batch.parts[0].num_samples <= high

    def texts(which):
        parts = objective.prepare(drawn(samples(), which=which)).parts
        split = [p and p.source.token_ids[: p.num_tokens].split(list(p.source.layout.lengths)) for p in parts]
        return [sorted(text.tolist() for text in part or ()) for part in split]

    one, other = texts(range(16)), texts([11, 3, 15, *range(3), *range(4, 11), *range(12, 15)])
    assert one == other
    first, second = texts(range(9)), texts(range(9, 16))
    assert one == [sorted(a + b) for a, b in zip(first, second, strict=True)]


def test_finishing_finishes_the_parts(encoder):
    model = encoder("rtd")
    before = set(model.state_dict())
    objective = mixture(model, GDESConfig(training="coupled"), RTDConfig())
    assert set(model.state_dict()) != before
    objective.finish(model)
    assert set(model.state_dict()) == before


def test_a_part_without_samples_has_no_targets(encoder):
    model = encoder()
    objective = mixture(model, MLMConfig(), SBOConfig(), weights=(1, 1e-9))
    batch = objective.prepare(drawn(samples(3)))
    assert batch.parts[1] is None
    assert objective.targets(batch) | {"mlm.lm": 0} == {"mlm.lm": 0, "sbo.lm": 0, "sbo.sbo": 0}
    found = objective.loss(model, batch, phase="train")
    assert found["sbo.sbo"] == found["sbo.lm"] == 0
    assert isinstance(objective.networks, Mapping)
    assert list(objective.networks) == ["sbo_boundary"]
    trains = objective.phases[0].trains
    assert trains("networks.sbo_boundary.inner.weight")
    assert trains("model.encoder.embeddings.tokens.weight")


def test_a_stand_in_changes_nothing_for_the_other_parts(encoder):
    """It draws from no stream of theirs, and gives gradients of zeros."""
    model = encoder(dropout=0.3).float()
    objective = mixture(model, SBOConfig(), MLMConfig(), weights=(1e-9, 1))
    batch = objective.prepare(drawn(samples(3)))
    assert batch.parts[0] is None

    def noise():
        return torch.Generator().manual_seed(0)

    alone = objective.parts["mlm"].loss(model, batch.parts[1].with_noise(noise()), phase="train")
    found = objective.loss(model, batch.with_noise(noise()), phase="train")
    assert found["mlm.lm"] == alone["lm"] > 0
    (boundary,) = objective.networks.values()
    gradients = torch.autograd.grad(sum(found.values()), list(boundary.parameters()))
    assert not any(gradient.any() for gradient in gradients)


def test_noise_reaches_the_parts(encoder):
    model = encoder(dropout=0.3).float()
    objective = mixture(model, MLMConfig(), MLMConfig())
    batch = objective.prepare(drawn(samples(8)))

    def noisy(seed):
        noise = torch.Generator().manual_seed(seed)
        return [x.item() for x in objective.loss(model, batch.with_noise(noise), phase="train").values()]

    plain = [x.item() for x in objective.loss(model, batch, phase="train").values()]
    assert noisy(1) == noisy(1)
    assert all(a != b != c for a, b, c in zip(noisy(1), noisy(2), plain, strict=True))


def test_heads():
    model = toy("encoder", "learned")
    assert MixtureConfig(parts=("mlm", "sbo")).head(model) == LMConfig()
    assert MixtureConfig(parts=("mlm", "nsp", "sop")).head(model) == PretrainConfig()
    assert MixtureConfig(parts=("clm", "clm")).head(toy("decoder", "learned")) == CLMConfig().head(
        toy("decoder", "learned")
    )
    with pytest.raises(SettingError, match="^objective: mlm trains an encoder"):
        MixtureConfig(parts=("clm", "mlm")).head(toy("decoder", "learned"))


def test_settings():
    config = build(MixtureConfig, {"parts": ["mlm", {"name": "sbo", "rate": 0.3}], "weights": [1, 3]})
    assert config.parts == (MLMConfig(), SBOConfig(rate=0.3))
    assert choices.choose("objective", config.model_dump(mode="json")) == config
    assert 'parts = [{name = "mlm"' in toml_text(config.model_dump(mode="json"))
    with pytest.raises(SettingError, match="weights must be as many as parts, 2, got 1"):
        build(MixtureConfig, {"parts": ["mlm", "sbo"], "weights": [1]})
    with pytest.raises(SettingError, match="parts must all have dynamic masks"):
        build(MixtureConfig, {"parts": ["mlm", {"name": "sbo", "masking": "static"}]})
    with pytest.raises(SettingError, match=r"^parts\.1\.rate: must be"):
        build(MixtureConfig, {"parts": ["mlm", {"name": "sbo", "rate": 3}]})
    both = [{"name": name, "masking": "static", "copies": 4} for name in ("mlm", "sbo")]
    assert build(MixtureConfig, {"parts": both}).duplicates == 4

"""Pretraining that goes on from a checkpoint."""

import json

import pytest
import torch
from tiny_pretraining import Listener, kept, leave, recipe, write_corpus

from tunesmith.base.errors import UserError
from tunesmith.models._checkpoint import load, save
from tunesmith.recipes.plan import estimate
from tunesmith.recipes.pretrain import pretrain
from tunesmith.recipes.pretrain_settings import pretrain_settings
from tunesmith.recipes.settings import nested

STILL = {"train.learning_rate": 1e-30, "train.max_steps": 2, "train.weight_decay": 0.0}


class Learnt:
    """A corpus, and a run on it."""

    def __init__(self, folder, case, **settings):
        self.folder, self.case = folder, case
        self.corpus = write_corpus(folder / "corpus.txt")
        self.recipe = str(recipe(folder, case))
        self.run = folder / "run"
        pretrain(self.recipe, self.corpus, out=self.run, settings=settings)

    def go_on(self, name="more", *, checkpoint=None, **settings):
        """Another run that begins there, and what was heard of it."""
        listener, out = Listener(), self.folder / name
        given = {"model.checkpoint": str(checkpoint or self.run), **STILL, **settings}
        model = pretrain(self.recipe, self.corpus, out=out, settings=given, listener=listener)
        return model, "\n".join(listener.notes), out


def metrics(run):
    """What the run found."""
    return json.loads((run / "metrics.json").read_text())


@pytest.mark.parametrize("case", ["mlm", "span_corruption", "nsp"])
def test_a_run_that_learns_nothing_more_ends_where_the_checkpoint_is(case, tmp_path):
    """Weights, head and tokenizer are all the checkpoint's; sizes of the recipe are not used, and named."""
    learnt = Learnt(tmp_path, case)
    model, said, out = learnt.go_on(**{"model.d_model": 64, "vocabulary.vocab_size": 300})
    for name, parameter in load(learnt.run).state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], parameter, rtol=0, atol=1e-12)
    assert metrics(out)["validation_loss"] == pytest.approx(metrics(learnt.run)["validation_loss"], abs=1e-5)
    assert (out / "tokenizer.json").read_bytes() == (learnt.run / "tokenizer.json").read_bytes()
    assert "model.d_model" in said
    assert "fresh" not in said


def test_what_the_checkpoint_lacks_is_fresh_and_named(tmp_path):
    """An encoder alone has no head; what it has is kept."""
    learnt = Learnt(tmp_path, "mlm")
    save(load(learnt.run).with_head(None), tmp_path / "encoder")
    model, said, _ = learnt.go_on(checkpoint=tmp_path / "encoder")
    assert "fresh: head." in said
    assert "encoder." not in said.partition("fresh:")[2]
    encoder = load(learnt.run).encoder
    assert encoder is not None
    assert model.encoder is not None
    for name, parameter in encoder.state_dict().items():
        torch.testing.assert_close(model.encoder.state_dict()[name], parameter, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("rtd", {}),
        ("rtd", {"objective.sharing": "none"}),
        ("gdes", {}),
        ("gdes", {"objective.training": "coupled"}),
    ],
)
def test_a_generator_goes_on_too(case, settings, tmp_path):
    """As the run has kept it; the model's tables stay the model's, also where they are kept as differences."""
    learnt = Learnt(tmp_path, case, **settings)
    model, said, out = learnt.go_on(**settings)
    assert "fresh" not in said
    again = load(out / "generator").state_dict()
    for name, parameter in load(learnt.run / "generator").state_dict().items():
        torch.testing.assert_close(again[name], parameter, rtol=0, atol=1e-12)
    for name, parameter in load(learnt.run).state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], parameter, rtol=0, atol=1e-7)
    for term in ("lm_loss", "rtd_loss"):
        assert metrics(out)["dev"][term] == pytest.approx(metrics(learnt.run)["dev"][term], abs=1e-5)


def test_a_generator_that_does_not_fit_is_fresh_and_named(tmp_path):
    """Of another width, or made to read a table of its own where it shall read the model's."""
    learnt = Learnt(tmp_path, "rtd", **{"objective.sharing": "none"})
    before = load(learnt.run).state_dict()
    for name, settings in [("width", {"objective.width": 0.25}), ("table", {"objective.sharing": "embeddings"})]:
        model, said, _ = learnt.go_on(name, **settings)
        assert said.partition("fresh: ")[2].startswith(f"generator ({learnt.run / 'generator'} has other")
        for key, parameter in before.items():
            torch.testing.assert_close(model.state_dict()[key], parameter, rtol=0, atol=1e-12)


def test_each_generator_of_a_mixture_goes_on(tmp_path):
    """Each is its own part's."""
    learnt = Learnt(tmp_path, "rtd mixture")
    _, said, out = learnt.go_on()
    assert "fresh" not in said
    for folder in ("rtd1_generator", "rtd2_generator"):
        again = load(out / folder).state_dict()
        for key, parameter in load(learnt.run / folder).state_dict().items():
            torch.testing.assert_close(again[key], parameter, rtol=0, atol=1e-12)


def test_dropout_is_the_recipes(tmp_path):
    """All else is the checkpoint's; without a rate of its own the recipe keeps the checkpoint's."""
    learnt = Learnt(tmp_path, "mlm", **{"model.dropout": 0.1})
    kept, said, _ = learnt.go_on("kept")
    changed, also_said, _ = learnt.go_on("changed", **{"model.dropout": 0.2, "model.attention_dropout": 0.3})
    assert (kept.config.trunk.dropout, kept.config.trunk.attention_dropout) == (0.1, 0.1)
    assert (changed.config.trunk.dropout, changed.config.trunk.attention_dropout) == (0.2, 0.3)
    assert "dropout," not in (said + also_said).replace("\n", ",")
    for name, parameter in load(learnt.run).state_dict().items():
        torch.testing.assert_close(changed.state_dict()[name], parameter, rtol=0, atol=1e-12)


def test_going_on_learns(tmp_path):
    """More steps end lower than the first run did."""
    learnt = Learnt(tmp_path, "mlm")
    _, _, out = learnt.go_on(**{"train.learning_rate": 0.01, "train.max_steps": 60})
    assert metrics(out)["validation_loss"] < metrics(learnt.run)["validation_loss"] - 0.1


def test_resume(tmp_path):
    """A run that was cut off goes on from its own state, not from the checkpoint again."""
    learnt = Learnt(tmp_path, "mlm")
    given = {"model.checkpoint": str(learnt.run), "model.dropout": 0.2, "train.max_steps": 6}
    pretrain(learnt.recipe, learnt.corpus, out=tmp_path / "whole", settings=given)
    with pytest.raises(SystemExit):
        pretrain(learnt.recipe, learnt.corpus, out=tmp_path / "cut", settings=given, listener=Listener(4, leave))
    heard = Listener()
    pretrain(learnt.recipe, learnt.corpus, out=tmp_path / "cut", settings=given, resume=True, listener=heard)
    assert 0 < len(heard.steps) < 6
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")


def test_what_does_not_go_together_is_refused(tmp_path):
    """One line each, and no model is left behind."""
    learnt = Learnt(tmp_path, "mlm")
    for name in ("other", "same"):
        (tmp_path / name).mkdir()
    other = Learnt(tmp_path / "other", "span_corruption")
    same = Learnt(tmp_path / "same", "mlm", **{"vocabulary.vocab_size": 80})
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((learnt.run / name).read_bytes())
    for given, why in [
        ({"tokenizer": str(other.run)}, "token vectors"),
        ({"tokenizer": str(same.run)}, "other tokens"),
        ({"checkpoint": bare}, "holds no tokenizer"),
        ({"checkpoint": tmp_path / "nowhere"}, "nowhere"),
        ({"checkpoint": other.run}, "encoder"),
        ({"data.max_tokens": 4096}, "data.max_tokens"),
    ]:
        with pytest.raises(UserError) as caught:
            learnt.go_on("refused", **given)
        assert why in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not list((tmp_path / "refused").rglob("*.safetensors"))


@pytest.mark.parametrize("named", ["model.checkpoint", "tokenizer"])
def test_a_plan_counts_what_a_run_would_have(named, tmp_path):
    """The checkpoint's sizes, not the recipe's; and the words of a tokenizer that is given."""
    learnt = Learnt(tmp_path, "mlm")
    given = {named: str(learnt.run), "vocabulary.vocab_size": 300}
    if named == "model.checkpoint":
        given["model.d_model"] = 64
    settings = pretrain_settings(learnt.recipe, nested(given))
    found = estimate(settings, num_devices=1, flops_per_second=1e12, price_per_hour=1.0)
    assert found.networks[0].parameters.total == metrics(learnt.run)["total_parameters"]

"""`tunesmith plan`: what it says is what a run would be."""

import json

import pytest

from tunesmith.base import choices
from tunesmith.cli.app import main
from tunesmith.recipes.plan import estimate
from tunesmith.recipes.pretrain_settings import pretrain_settings


def of(recipe, *layers, **given):
    defaults = {"num_devices": 1, "flops_per_second": 4e14, "price_per_hour": 0.0}
    return estimate(pretrain_settings(recipe, *layers), **(defaults | given))


@pytest.mark.parametrize("recipe", [name for name in choices.names("recipe") if not name.endswith("_paper")])
def test_every_recipe_has_a_plan(recipe):
    found = of(recipe, {"train": {"max_steps": 10}})
    assert found.networks[0].name == "model"
    assert found.bill is not None
    assert found.flops_per_token > 0
    assert found.memory_bytes > 4 * 4 * found.networks[0].parameters.total // 2


def test_bert_as_published():
    """110 M parameters; 6 operations a weight and token in the blocks, the vocabulary at masks only."""
    found = of("bert_paper")
    (model,) = found.networks
    assert model.parameters.total == pytest.approx(110e6, rel=0.01)
    blocks = 6 * (model.parameters.attention + model.parameters.feedforward)
    assert blocks < found.flops_per_token < 1.3 * blocks


def test_time_and_money_follow_the_devices():
    one, eight = of("bert_paper", price_per_hour=2.0), of("bert_paper", num_devices=8, price_per_hour=2.0)
    assert eight.bill.seconds == pytest.approx(one.bill.seconds / 8)
    assert eight.bill.price == pytest.approx(one.bill.price)
    assert one.bill.price == pytest.approx(2 * one.bill.seconds / 3600)


def test_a_generator_is_counted():
    found = of("electra_paper")
    assert [network.name for network in found.networks] == ["model", "generator"]


def test_minutes_alone_have_no_bill(capsys):
    assert of("bert").bill is None
    with pytest.raises(SystemExit) as left:
        main(["plan", "bert"])
    assert left.value.code == 0
    assert "it ends after 3.5 minutes" in capsys.readouterr().out


def test_json(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "gpt2_paper", "--gpus", "2", "--price", "3", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["networks"]["model"]["parameters"]["total"] == pytest.approx(124e6, rel=0.01)
    assert said["price"] > 0


def test_a_rate_of_nothing_is_refused(capsys):
    with pytest.raises(SystemExit) as left:
        main(["plan", "bert_paper", "--flops", "0"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "--flops: must be above 0, got 0\n"

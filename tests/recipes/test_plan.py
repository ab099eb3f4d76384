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


def sequence_of_bert(tokens):
    """Operations of training BERT-Base on one sequence, by hand; the last layer's queries are of predicted tokens."""
    d, layers, vocabulary = 768, 12, 30522
    masked = round(0.15 * (tokens - 3))
    whole, last = tokens * 12 * d * d, (tokens * 2 + masked * 10) * d * d
    scores = 2 * tokens * d * ((layers - 1) * tokens + masked)
    head = masked * (d * d + vocabulary * d) + d * d + 2 * d
    return 3 * 2 * ((layers - 1) * whole + last + scores + head)


def test_bert_as_published_reads_short_sequences_for_most_of_the_run():
    """900,000 steps of 256 x 128 tokens and 100,000 of 256 x 512: 42.6 G tokens, not 131 G."""
    found = of("bert_paper", price_per_hour=2.0)
    short, long = 900_000 * 256, 100_000 * 256
    assert found.sequences == pytest.approx(short + long)
    assert found.tokens == pytest.approx(short * 128 + long * 512)
    flops = short * sequence_of_bert(128) + long * sequence_of_bert(512)
    assert found.flops_per_token == pytest.approx(flops / (short * 128 + long * 512), rel=0.01)
    assert found.bill.seconds == pytest.approx(flops / 4e14, rel=0.01)
    assert found.bill.price == pytest.approx(2 * flops / 4e14 / 3600, rel=0.01)
    always = of("bert_paper", {"data": {"short_tokens": None}})
    assert always.bill.seconds / found.bill.seconds == pytest.approx(3.1, rel=0.05)
    assert always.memory_bytes == found.memory_bytes  # that of the longer ones


def test_budgets_in_tokens_and_in_minutes_have_stages_too():
    given = {"data": {"short_tokens": 128, "short_share": 0.5}}
    found = of("bert_paper", given, {"train": {"max_steps": None, "tokens": 1_000_000}})
    assert found.tokens == pytest.approx(1e6)
    assert found.sequences == pytest.approx(5e5 / 128 + 5e5 / 512)
    timed = of("bert_paper", given, {"train": {"max_steps": None, "minutes": 5}})
    assert (timed.bill, timed.sequences) == (None, None)
    short, long = sequence_of_bert(128), sequence_of_bert(512)
    assert timed.flops_per_token == pytest.approx(2 / (128 / short + 512 / long), rel=0.01)  # half of the time each


def test_steps_of_growing_batches():
    """10 to 20 sequences over the first half: 15 on average there."""
    train = {"max_steps": 100, "batch_size": 20, "batch_start": 10, "batch_warmup": 0.5}
    found = of("bert_paper", {"train": train, "data": {"short_tokens": 128, "short_share": 0.5}})
    assert found.sequences == pytest.approx(50 * 15 + 50 * 20, rel=0.01)
    assert found.tokens == pytest.approx(50 * 15 * 128 + 50 * 20 * 512, rel=0.01)


def test_several_devices_hold_buckets_of_gradients():
    one, two = of("bert_paper"), of("bert_paper", num_devices=2)
    assert two.memory_bytes - one.memory_bytes == one.networks[0].memory.gradients


def test_a_query_stream_is_counted():
    """XLNet predicts a sixth of the tokens, whose queries go through all blocks."""
    given = {"data": {"max_tokens": 512}}
    plain = of("bert_paper", given, {"data": {"short_tokens": None}})
    assert plain.flops_per_token > 0
    found = of("xlnet_paper", given)
    (model,) = found.networks
    blocks = 6 * (model.parameters.attention + model.parameters.feedforward)
    assert found.flops_per_token > (1 + 1 / 7) * blocks


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

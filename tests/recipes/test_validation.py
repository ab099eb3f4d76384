"""What looking at the dev split tells."""

import json
import math

import pytest
from tiny_pretraining import Listener, recipe, write_corpus

from tunesmith.base.errors import UserError
from tunesmith.recipes.corpus import make_ready
from tunesmith.recipes.learner import Trainee, make_learner
from tunesmith.recipes.pretrain import pretrain
from tunesmith.recipes.pretrain_settings import pretrain_settings
from tunesmith.recipes.settings import nested
from tunesmith.recipes.validation import Validation
from tunesmith.train.precision import choose_machine


@pytest.mark.parametrize(("case", "changes"), [("mlm", {}), ("gdes", {}), ("mlm", {"preset": "xlnet_mini"})])
def test_parameters_that_a_loss_does_not_reach(case, changes, tmp_path):
    """Of two phases each has its own; and XLNet has a vector that only its own objective reads."""
    settings = pretrain_settings(str(recipe(tmp_path, case)), {"model": changes})
    ready = make_ready(write_corpus(tmp_path / "corpus.txt"), tmp_path / "run", settings, Listener())
    model, objective = make_learner(settings, ready, Listener())
    trainee = Trainee(model, objective).train()
    validation = Validation(
        ready.dev, ready.vocabulary.frame, objective, settings, choose_machine("cpu", settings.train.precision)
    )
    before = validation.losses(trainee)
    found = validation.unreached(trainee)
    assert trainee.training
    assert all(parameter.grad is None for parameter in trainee.parameters())
    assert validation.losses(trainee) == before
    if case == "gdes":
        assert {name.split(".")[0] for name in found} == {"model", "networks"}
    else:
        assert found == set() if not changes else len(found) == 1


def refused(tmp_path, case, **texts):
    """The line that a run with these splits ends with."""
    (tmp_path / "texts").mkdir()
    for split, text in texts.items():
        (tmp_path / "texts" / f"{split}.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        pretrain(str(recipe(tmp_path, case)), tmp_path / "texts", settings={"input.name": INPUTS[case]})
    assert "\n" not in str(caught.value)
    return str(caught.value)


INPUTS = {"mlm": "blocks", "nsp": "segment_pair"}
SHORT = "A fine song.\n"


@pytest.mark.parametrize(("case", "why"), [("mlm", "got 24"), ("nsp", "there is only one")])
def test_a_dev_part_that_is_too_small_is_called_so(case, why, tmp_path):
    """The text to learn from is large enough: what is wrong is how little was held back."""
    long = write_corpus(tmp_path / "long.txt").read_text()
    said = refused(tmp_path, case, train=long, dev=SHORT)
    for part in ("dev part", "1 document", "data.dev_share", why):
        assert part in said


@pytest.mark.parametrize("case", ["mlm", "nsp"])
def test_a_fault_of_the_text_to_learn_from_is_not_laid_on_the_dev_part(case, tmp_path):
    long = write_corpus(tmp_path / "long.txt").read_text()
    assert "dev" not in refused(tmp_path, case, train=SHORT, dev=long).replace("dev.txt", "")


GPT2 = {"model.preset": "gpt2_mini", "vocabulary.style": "gpt2", "vocabulary.kind": "bpe", "vocabulary.vocab_size": 300}
MIXTURE = {"name": "mixture", "parts": [{"name": "clm"}, {"name": "prefix_lm"}]}


@pytest.mark.parametrize("objective", [{"name": "clm"}, MIXTURE], ids=lambda tree: tree["name"])
@pytest.mark.parametrize("looked_at", [500, 1])
def test_bits_per_byte_are_those_of_the_text_that_is_looked_at(objective, looked_at, tmp_path):
    """All nats of blocks, whose first token nobody predicts, over the bytes of the text in them."""
    corpus = write_corpus(tmp_path / "corpus.txt")
    changes = {**GPT2, "objective": objective, "input.name": "blocks", "data.dev_sequences": looked_at}
    changes |= {"train.max_steps": 1, "data.dev_share": 0.3, "train.micro_batch_tokens": 200}
    run = tmp_path / "run"
    pretrain(str(recipe(tmp_path, "mlm")), corpus, out=run, settings=changes)
    settings = pretrain_settings(str(recipe(tmp_path, "mlm")), nested(changes))
    dev = make_ready(corpus, run, settings, Listener()).dev
    length, found = settings.data.max_tokens, json.loads((run / "metrics.json").read_text())["dev"]
    mean = found["lm_loss"] if objective["name"] == "clm" else found["clm.lm_loss"]
    blocks = min(looked_at, (dev.num_tokens + dev.num_documents) // length)
    nats = mean * blocks * (length - 1)
    wanted = nats / math.log(2) / (dev.num_bytes * blocks * length / (dev.num_tokens + dev.num_documents))
    assert found["bits_per_byte"] == pytest.approx(wanted, rel=0.1 if looked_at == 1 else 0.01)


def test_bits_per_byte_are_said_of_causal_models_only(tmp_path):
    pretrain(
        str(recipe(tmp_path, "mlm")), write_corpus(tmp_path / "corpus.txt"), out=tmp_path / "run",
        settings={"train.max_steps": 1},
    )  # fmt: skip
    assert "bits_per_byte" not in json.loads((tmp_path / "run" / "metrics.json").read_text())["dev"]

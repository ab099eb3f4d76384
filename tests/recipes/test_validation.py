"""What looking at the dev split tells."""

import pytest
from tiny_pretraining import Listener, recipe, write_corpus

from tunesmith.recipes.corpus import make_ready
from tunesmith.recipes.learner import Trainee, make_learner
from tunesmith.recipes.pretrain_settings import pretrain_settings
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

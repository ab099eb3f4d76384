"""Recipes say what their papers say."""

import pytest

from tunesmith.recipes.pretrain_settings import pretrain_settings


@pytest.mark.parametrize("recipe", ["roberta_paper", "bart_paper"])
def test_what_is_trained_as_roberta_does_not_clip(recipe):
    assert pretrain_settings(recipe).train.max_grad_norm >= 1e9

"""The regularisation path against scikit-learn on the same normalised features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from tunesmith.features.path import Point, best_point, path, strengths

STRENGTHS = [100.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4]


def features(rows, width, seed=0):
    """Correlated, far from zero, of very different spreads: as hidden states are."""
    stream = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, width, generator=stream) @ torch.randn(width, width, generator=stream)
    return mixed * torch.linspace(0.2, 3, width) + 5 * torch.randn(width, generator=stream)


def normalised(x):
    centred = (x - x.mean(0)).double()
    return (centred / centred.square().mean().sqrt()).numpy()


def classes(x, count, seed=0):
    stream = torch.Generator().manual_seed(seed + 1)
    scores = (x - x.mean(0)) @ torch.randn(x.shape[1], count, generator=stream)
    return (scores / scores.std() + torch.randn(scores.shape, generator=stream)).argmax(1)


@pytest.mark.parametrize(("count", "rows", "width"), [(2, 300, 12), (4, 300, 12), (4, 30, 48)])
def test_softmax(count, rows, width):
    x = features(rows, width)
    y = classes(x, count)
    assert len(y.unique()) == count
    points = path(x, y, loss="softmax", num_outputs=count, values=STRENGTHS)
    for point, strength in zip(points, STRENGTHS, strict=True):
        assert point.strength == strength
        # two classes: scikit-learn has one vector w = w1 - w0, and |w|^2 / 2 = |w0|^2 + |w1|^2 at its least
        weight = 2.0 if count == 2 else 1.0
        theirs = LogisticRegression(C=weight / (strength * rows), max_iter=10_000, tol=1e-9).fit(normalised(x), y)
        ours = point.logits(x).double().softmax(-1).numpy()
        np.testing.assert_allclose(ours, theirs.predict_proba(normalised(x)), rtol=0, atol=1e-3)


def test_sigmoid():
    rows, count = 300, 3
    x = features(rows, 12)
    y = torch.stack([classes(x, 2, seed) for seed in range(count)], 1).float()
    points = path(x, y, loss="sigmoid", num_outputs=count, values=STRENGTHS)
    for point, strength in zip(points, STRENGTHS, strict=True):
        for column in range(count):  # the loss is the mean over the columns
            theirs = LogisticRegression(C=1 / (count * strength * rows), max_iter=10_000, tol=1e-9)
            theirs.fit(normalised(x), y[:, column])
            ours = point.logits(x)[:, column].double().sigmoid().numpy()
            np.testing.assert_allclose(ours, theirs.predict_proba(normalised(x))[:, 1], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("rows", "width"), [(300, 12), (20, 40)])
def test_squared(rows, width):
    x = features(rows, width)
    y = (x @ torch.linspace(-1, 1, width) + 3)[:, None]
    for point in path(x, y, loss="squared", num_outputs=1, values=STRENGTHS):
        theirs = Ridge(alpha=point.strength * rows).fit(normalised(x), y.double().numpy()[:, 0])
        want = theirs.predict(normalised(x))
        scale = 1e-4 * np.abs(want).max()  # features and results are fp32
        np.testing.assert_allclose(point.logits(x)[:, 0].numpy(), want, rtol=0, atol=scale)


def test_the_gradient_is_zero_at_a_solution():
    x, strength = features(200, 10), 1e-2
    y = classes(x, 3)
    (point,) = path(x, y, loss="softmax", num_outputs=3, values=[strength])
    z = torch.from_numpy(normalised(x))
    scale = float((x - x.mean(0)).square().mean().sqrt())
    weight = (point.weight.double() * scale).requires_grad_()
    bias = (point.bias.double() + point.weight.double() @ x.mean(0).double()).requires_grad_()
    loss = torch.nn.functional.cross_entropy(z @ weight.t() + bias, y) + strength / 2 * weight.square().sum()
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert gradient.abs().max() < 1e-3


def test_the_order_of_strengths_does_not_matter():
    x = features(200, 10)
    y = classes(x, 3)
    found = [
        {
            point.strength: point.logits(x).softmax(-1)
            for point in path(x, y, loss="softmax", num_outputs=3, values=values)
        }
        for values in (STRENGTHS, STRENGTHS[::-1])
    ]
    for strength in STRENGTHS:
        torch.testing.assert_close(found[0][strength], found[1][strength], rtol=0, atol=1e-3)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "squared"])
def test_features_that_say_nothing(loss):
    """All rows alike: the shares of the classes (or the mean) remain."""
    x = torch.full((8, 4), 3.0)
    y = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    targets = y if loss == "softmax" else y[:, None].float()
    outputs = 2 if loss == "softmax" else 1
    for point in path(x, targets, loss=loss, num_outputs=outputs, values=STRENGTHS):
        logits = point.logits(x)
        share = {"softmax": logits.softmax(-1)[:, -1], "sigmoid": logits.sigmoid()[:, 0], "squared": logits[:, 0]}[loss]
        torch.testing.assert_close(share, torch.full((8,), 0.25), rtol=0, atol=1e-3)


def test_a_class_that_never_occurs():
    x = features(50, 6)
    y = classes(x, 2) * 2  # 0 and 2
    for point in path(x, y, loss="softmax", num_outputs=3, values=STRENGTHS):
        assert torch.isfinite(point.logits(x)).all()
        assert point.logits(x).softmax(-1)[:, 1].max() < 0.02


def test_strengths():
    assert strengths(3, strongest=100, weakest=1) == pytest.approx([100, 10, 1])
    assert strengths(1) == [pytest.approx(100)]
    assert sorted(strengths(), reverse=True) == strengths()


def test_the_best_point_is_the_strongest_of_equals():
    points = [Point(s, torch.zeros(1, 1), torch.zeros(1)) for s in (4.0, 3.0, 2.0, 1.0)]
    scores = {4.0: 0.1, 3.0: 0.7, 2.0: 0.7, 1.0: 0.2}
    point, score, seen = best_point(iter(points), lambda point: scores[point.strength])
    assert (point.strength, score) == (3.0, 0.7)
    assert seen == list(scores.items())

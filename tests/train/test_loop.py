"""The loop by itself, on least squares: when it stops, what it leaves, and that micro-batches change nothing."""

import math
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tunesmith.base.errors import UserError
from tunesmith.base.random import torch_stream
from tunesmith.text.batching import Examples, Order, cut_by_tokens, pack
from tunesmith.text.tokenizer import Encoded
from tunesmith.train import loop
from tunesmith.train.checkpoint import Checkpoints, Progress
from tunesmith.train.loop import Evaluation, Interrupted, Plan, train
from tunesmith.train.optim.adamw import AdamWConfig
from tunesmith.train.parallel import Parallel
from tunesmith.train.schedule.linear import LinearConfig
from tunesmith.train.step import Stepper, TrainingError
from tunesmith.train.update import Update

SIZE, STEPS = 24, 12
CPU = torch.device("cpu")


class LeastSquares:
    """Sum of squared errors of a linear map with dropout on its inputs; an example has as many tokens as targets."""

    def __init__(self, *, limit=40, rate=0.0, batch_size=8, dtype=torch.float64):
        draw = np.random.default_rng(0)
        self.lengths = draw.integers(1, 9, SIZE)
        ids = [[1] * int(length) for length in self.lengths]
        segments = [[0] * len(row) for row in ids]
        self.examples = Examples(Encoded(ids=ids, segments=segments, words=[[] for _ in ids], truncated=[False] * SIZE))
        self.x = torch.from_numpy(draw.normal(size=(SIZE, 5))).to(dtype)
        self.y = torch.from_numpy(draw.normal(size=(SIZE, 3))).to(dtype)
        self.weight = torch.nn.Parameter(torch.from_numpy(draw.normal(size=(3, 5))).to(dtype))
        self.bias = torch.nn.Parameter(torch.zeros(3, dtype=dtype))
        self.limit, self.rate = limit, rate
        self.order = Order(SIZE, batch_size=batch_size, seed=0)
        self.seen = []

    @property
    def parameters(self):
        return {"weight": self.weight, "bias": self.bias}

    def micro_batches(self, progress):
        self.seen.append(progress.step)
        return self.cut(progress.step)

    def describe(self, number=None):
        return f"batch {self.seen[-1]}" + ("" if number is None else f", part {number}")

    def cut(self, step):
        cuts = cut_by_tokens(self.order.step(step), self.lengths, max_tokens=self.limit)
        return [pack(self.examples, indices) for indices in cuts]

    def targets(self, batch):
        return {"loss": int(self.lengths[list(batch.indices)].sum())}

    def losses(self, batch, *, phase, noise):
        return {"loss": self.loss(batch, noise)}

    def loss(self, batch, noise=None):
        rows = list(batch.indices)
        x = self.x[rows]
        keep = torch.rand(x.shape, generator=noise, dtype=x.dtype) >= self.rate
        errors = (x * keep) @ self.weight.t() + self.bias - self.y[rows]
        return (errors.square().mean(1) * torch.from_numpy(self.lengths[rows])).sum()


def plan(**changes):
    fields = {
        "steps": STEPS, "schedule": LinearConfig(), "steps_per_epoch": SIZE / 8, "warmup": 0.1, "evaluations": 4,
        "patience": 99, "minutes": None, "checkpoint_seconds": 1e6,
    }  # fmt: skip
    return Plan(**(fields | changes))


def stepper(work, *, max_grad_norm=1.0):
    optimiser = AdamWConfig().build(work.parameters, learning_rate=0.05, weight_decay=0.01)
    return Stepper(
        work=work,
        module=torch.nn.Module(),
        updates=[Update("train", {"loss": 1.0}, work.parameters, optimiser)],
        parallel=Parallel(),
        device=CPU,
        seed=0,
        learning_rate=0.05,
        max_grad_norm=max_grad_norm,
    )


def run(work, folder, *, scores=None, report=lambda progress: None, evaluate=None, max_grad_norm=1.0, **changes):
    """Train; the evaluations give ``scores`` one after the other, or ever better ones."""
    given = iter(scores if scores is not None else range(10_000))
    return train(
        stepper(work, max_grad_norm=max_grad_norm),
        plan(**changes),
        evaluate=evaluate or (lambda: Evaluation(float(next(given)), None)),
        checkpoints=Checkpoints(folder),
        report=report,
    )


def timeless(curve):
    return [{name: value for name, value in point.items() if name != "seconds"} for point in curve]


def values(work):
    return {name: parameter.detach().clone() for name, parameter in work.parameters.items()}


def assert_same_bits(got, want):
    assert all(torch.equal(got[name], want[name]) for name in want)


def history(work, into):
    """A report that keeps the parameters after each step."""
    return lambda progress: into.append(values(work))


def test_it_learns_and_counts(tmp_path):
    work, first = LeastSquares(), LeastSquares()
    seen = []
    progress = run(work, tmp_path, report=lambda progress: seen.append(progress.step), steps=60)
    assert seen == list(range(1, 61))
    assert progress.done
    assert progress.examples == 60 * 8
    assert progress.tokens == sum(int(work.lengths[work.order.step(step)].sum()) for step in range(60))
    everything = pack(work.examples, range(SIZE))
    assert work.loss(everything) < 0.7 * first.loss(everything)
    assert [point["step"] for point in progress.curve] == [15, 30, 45, 60]
    assert progress.curve[1]["epoch"] == pytest.approx(30 * 8 / SIZE)


@pytest.mark.parametrize(
    ("patience", "scores", "stops_at", "best"),
    [
        (1, [0.5, 0.4, 0.9, 0.9], 6, 3),
        (2, [0.5, 0.4, 0.6, 0.9], 12, 12),
        (2, [0.5, 0.4, 0.3, 0.9], 9, 3),
        (2, [0.5, 0.6, 0.6, 0.6], 12, 6),  # an equal score is not a better one
        (3, [0.5, 0.5, 0.5, 0.5], 12, 3),
    ],
)
def test_patience_stops_and_the_best_step_is_left_in_place(tmp_path, patience, scores, stops_at, best):
    work, after = LeastSquares(), []
    progress = run(work, tmp_path, scores=scores, patience=patience, report=history(work, after))
    assert (progress.step, progress.best_step, progress.done) == (stops_at, best, True)
    assert progress.best == max(scores[: stops_at // 3])
    assert_same_bits(work.parameters, after[best - 1])
    assert best == stops_at or not torch.equal(work.weight, after[-1]["weight"])
    assert [path.name for path in tmp_path.glob("best-*")] == [f"best-{best}.safetensors"]


def test_a_finished_run_is_left_at_its_best_step_when_it_is_called_again(tmp_path):
    run(LeastSquares(), tmp_path, scores=[0.5, 0.9, 0.1, 0.2])
    work, again = LeastSquares(), LeastSquares()
    progress = run(again, tmp_path, scores=[])
    assert again.seen == []
    assert (progress.step, progress.best_step) == (12, 6)
    after = []
    run(work, tmp_path / "other", scores=[0.5, 0.9, 0.1, 0.2], report=history(work, after))
    assert_same_bits(again.parameters, after[5])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_one_line_and_changes_no_parameter(tmp_path, bad):
    class Diverges(LeastSquares):
        def loss(self, batch, noise=None):
            return super().loss(batch, noise) * (bad if self.seen[-1] == 4 else 1)

    work, after = Diverges(), []
    with pytest.raises(TrainingError) as caught:
        run(work, tmp_path, report=history(work, after))
    assert isinstance(caught.value, UserError)
    said = str(caught.value)
    assert said.startswith(f"train: the loss became {bad} at step 5 (batch 4, part 0): lower train.learning_rate (now")
    assert "\n" not in said
    assert len(after) == 4
    assert_same_bits(work.parameters, after[3])


@pytest.mark.parametrize("step", [1, 3, 7, STEPS - 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ctrl_c_saves_and_the_resumed_run_has_the_same_bits(tmp_path, step, dtype):
    whole = LeastSquares(rate=0.3, dtype=dtype)
    wanted = run(whole, tmp_path / "whole", scores=[0.1, 0.7, 0.3, 0.4])

    def interrupt(progress):
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    work = LeastSquares(rate=0.3, dtype=dtype)
    with pytest.raises(Interrupted):
        run(work, tmp_path / "run", scores=[0.1, 0.7, 0.3, 0.4], report=interrupt)
    assert work.seen == list(range(step))
    assert signal.getsignal(signal.SIGINT) is before
    again = LeastSquares(rate=0.3, dtype=dtype)
    progress = run(again, tmp_path / "run", scores=[0.1, 0.7, 0.3, 0.4][step // 3 :])
    assert again.seen == list(range(step, STEPS))
    assert_same_bits(again.parameters, whole.parameters)
    assert timeless(progress.curve) == timeless(wanted.curve)
    assert (progress.best, progress.best_step, progress.tokens) == (wanted.best, 6, wanted.tokens)


def test_ctrl_c_in_the_last_step_finishes(tmp_path):
    def interrupt(progress):
        if progress.step == STEPS:
            os.kill(os.getpid(), signal.SIGINT)

    assert run(LeastSquares(), tmp_path, report=interrupt).done


def test_a_second_ctrl_c_interrupts_at_once(tmp_path):
    class Impatient(LeastSquares):
        def loss(self, batch, noise=None):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt) as caught:
        run(Impatient(), tmp_path)
    assert not isinstance(caught.value, Interrupted)


class Clock:
    """A stand-in for the module ``time``: each step takes ten seconds, and looking at it takes none."""

    def __init__(self, work):
        self.work = work

    def monotonic(self):
        return 10.0 * len(self.work.seen)


@pytest.mark.parametrize(("minutes", "steps"), [(1.0, 6), (0.95, 6), (0.01, 1), (99, STEPS)])
def test_time_limit(tmp_path, monkeypatch, minutes, steps):
    """The step in which the time is up is the last one, and it is looked at; the learning rate lands near zero."""
    work, rates = LeastSquares(), []
    monkeypatch.setattr(loop, "time", Clock(work))

    class Watched(LinearConfig):
        def factor(self, moment):
            rates.append(moment.share)
            return 1 - moment.share

    progress = run(work, tmp_path, minutes=minutes, schedule=Watched())
    assert (progress.step, progress.done) == (steps, True)
    assert progress.seconds == 10.0 * steps
    assert progress.curve[-1]["step"] == steps
    total = 6 * minutes
    assert rates == pytest.approx([min(1, max((i + 1) / (total + 1), (i + 1) / (STEPS + 1))) for i in range(steps)])


def test_time_counts_across_an_interruption(tmp_path, monkeypatch):
    def interrupt(progress):
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    work, again = LeastSquares(), LeastSquares()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", Clock(work))
        with pytest.raises(Interrupted):
            run(work, tmp_path, minutes=1.0, report=interrupt)
    monkeypatch.setattr(loop, "time", Clock(again))
    assert run(again, tmp_path, minutes=1.0).step == 6
    assert again.seen == [4, 5]


@pytest.mark.parametrize("limit", [1, 8, 15, 30])
def test_micro_batches_are_exactly_one_large_batch(tmp_path, limit):
    """Targets are counted over the whole step, so micro-batches of unequal sizes do not weigh alike."""
    large, small = LeastSquares(limit=10_000), LeastSquares(limit=limit)
    batches = small.cut(0)
    assert len(large.cut(0)) == 1
    assert len({small.targets(batch)["loss"] for batch in batches}) > 1
    steps = {"large": [], "small": []}
    progress = [
        run(work, tmp_path / name, report=history(work, steps[name]), max_grad_norm=0.5)
        for name, work in (("large", large), ("small", small))
    ]
    for a, b in zip(steps["large"], steps["small"], strict=True):
        for name in a:
            torch.testing.assert_close(b[name], a[name], rtol=0, atol=1e-10)
    assert [point["train_loss"] for point in progress[1].curve] == pytest.approx(
        [point["train_loss"] for point in progress[0].curve], abs=1e-10
    )


class Explodes(LeastSquares):
    """A loss that is a hundred times as high from a step on."""

    def __init__(self, *, at, **more):
        super().__init__(**more)
        self.at = at

    def loss(self, batch, noise=None):
        return super().loss(batch, noise) * (1 if self.seen[-1] < self.at else 100)


def last_good(folder):
    """Step of the checkpoint that is left."""
    kept = Checkpoints(folder).load(stepper(LeastSquares()).updates)
    return None if kept is None else kept.step


def test_the_micro_batch_that_is_no_number_is_named(tmp_path):
    class Diverges(LeastSquares):
        parts = 0

        def loss(self, batch, noise=None):
            self.parts += 1
            return super().loss(batch, noise) * (math.nan if self.parts == 2 else 1)

    work = Diverges(limit=15)
    assert len(work.cut(0)) > 2
    with pytest.raises(TrainingError, match=r"^train: the loss became nan at step 1 \(batch 0, part 1\): lower"):
        run(work, tmp_path)


def test_an_exploding_loss_stops_with_a_checkpoint_from_before(tmp_path):
    with pytest.raises(TrainingError, match=r"the loss exploded: .* at step 30 \(batch 29\)"):
        run(Explodes(at=20), tmp_path, steps=60, evaluations=1, checkpoint_seconds=0.0, exploded=2.0)
    assert last_good(tmp_path) == 20


def test_looks_keep_no_exploded_state(tmp_path):
    """There are more looks than the steps in a row that an explosion takes to be told."""
    with pytest.raises(TrainingError, match="the loss exploded"):
        run(Explodes(at=20), tmp_path, steps=60, evaluations=60, exploded=2.0)
    assert last_good(tmp_path) == 20


def test_ctrl_c_keeps_no_exploded_state(tmp_path):
    def interrupt(progress):
        if progress.step == 23:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run(Explodes(at=20), tmp_path, steps=60, evaluations=1, checkpoint_seconds=0.0, exploded=2.0, report=interrupt)
    assert last_good(tmp_path) == 20


def test_a_loss_that_explodes_in_its_second_step_is_told(tmp_path):
    with pytest.raises(TrainingError, match="the loss exploded: .* at step 11"):
        run(Explodes(at=1), tmp_path, steps=60, evaluations=1, exploded=2.0)


@pytest.mark.parametrize(("steps", "said"), [(60, "for the last step"), (57, None), (64, "for 5 steps")])
def test_a_run_never_ends_exploded(tmp_path, steps, said):
    """Fewer high steps than are waited for elsewhere are enough at the end."""
    work = Explodes(at=59)
    if said is None:
        assert run(work, tmp_path, steps=steps, evaluations=1, exploded=2.0).done
        return
    with pytest.raises(TrainingError, match=f"the loss exploded: .* {said}: the last checkpoint is from before"):
        run(work, tmp_path, steps=steps, evaluations=1, checkpoint_seconds=0.0, exploded=2.0)
    assert last_good(tmp_path) == 59


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [2, 4])
def test_a_dev_loss_that_is_no_number_ends_the_run_before_it_is_saved(tmp_path, bad, at):
    looks = iter(range(1, 5))

    def evaluate():
        loss = bad if next(looks) == at else 1.0
        return Evaluation(-loss, loss)

    with pytest.raises(
        TrainingError, match=f"^train: the dev loss became {bad} at step {3 * at} .batch {3 * at - 1}.: lower"
    ) as caught:
        run(LeastSquares(), tmp_path, evaluate=evaluate, keeps="last")
    assert "\n" not in str(caught.value)
    assert last_good(tmp_path) == 3 * (at - 1)


@pytest.mark.parametrize("evaluations", [1, STEPS])
def test_weights_that_are_no_numbers_are_never_saved(tmp_path, evaluations):
    work = LeastSquares()

    def spoil(progress):
        if progress.step == 5:
            work.bias.data.fill_(math.nan)

    with pytest.raises(
        TrainingError, match=r"^train: weights are no numbers any more behind step 5 \(batch 4\): lower"
    ):
        run(work, tmp_path, evaluations=evaluations, checkpoint_seconds=0.0, report=spoil)
    assert last_good(tmp_path) == 4


def test_a_loss_may_rise_where_nothing_else_is_said(tmp_path):
    """Tuning may begin with a model that is at home in the data: its first losses say nothing of the later ones."""

    class Rises(LeastSquares):
        def loss(self, batch, noise=None):
            return super().loss(batch, noise) * (1e-3 if self.seen[-1] < 10 else 1)

    assert run(Rises(), tmp_path, steps=40).step == 40


@pytest.mark.parametrize("tokens", [1, 100, 333])
def test_a_budget_in_tokens_ends_with_the_step_that_spends_it(tmp_path, tokens):
    work, shares = LeastSquares(), []

    class Watched(LinearConfig):
        def factor(self, moment):
            shares.append(moment.share)
            return 1.0

    progress = run(work, tmp_path, steps=None, tokens=tokens, schedule=Watched())
    each = [int(work.lengths[work.order.step(step)].sum()) for step in range(progress.step)]
    assert progress.tokens == sum(each) >= tokens > sum(each[:-1])
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(each[0] / (tokens + each[0]))  # and not 0, which would waste the step
    assert shares[-1] <= 1


@pytest.mark.parametrize("budget", [{"steps": None, "tokens": 400}, {"steps": None, "minutes": 2.0}, {"steps": 9}])
def test_no_step_of_the_warm_up_is_wasted(tmp_path, monkeypatch, budget):
    """The step that comes is counted, whatever the budget is in."""
    work, rates = LeastSquares(), []
    monkeypatch.setattr(loop, "time", Clock(work))
    run(work, tmp_path, warmup=0.5, report=lambda progress: rates.append(progress.last_rate), **budget)
    assert rates[0] > 0
    assert rates[0] < rates[1]


def test_the_phases_of_a_step_have_noise_of_their_own():
    """A step of one phase keeps the numbers that it has always had."""

    def drawn(*names):
        class Listens(LeastSquares):
            def losses(self, batch, *, phase, noise):
                heard.append((phase, torch.rand(2, generator=noise).tolist(), torch.rand(2).tolist()))
                return super().losses(batch, phase=phase, noise=noise)

        heard, work = [], Listens(limit=10_000)
        optimiser = AdamWConfig().build(work.parameters, learning_rate=0.05, weight_decay=0.01)
        updates = [Update(name, {"loss": 1.0}, work.parameters, optimiser) for name in names]
        made = replace(stepper(work), updates=updates, seed=7)
        train(
            made,
            plan(steps=1),
            evaluate=lambda: Evaluation(0.0, None),
            checkpoints=Checkpoints(tmp),
            report=lambda p: None,
        )
        return heard

    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name) / "one"
        ((_, own, torchs),) = drawn("train")
        tmp = Path(name) / "two"
        first, second = drawn("generator", "discriminator")
    assert own == torch.rand(2, generator=torch_stream("dropout", 7, 0, 0)).tolist()
    assert own != first[1] != second[1] != own
    assert torchs != first[2] != second[2]


@pytest.mark.parametrize("share", [0.25, 0.999, 1.001, 4.0, None])
def test_a_step_is_as_long_as_the_clipped_gradient(share):
    """Plain descent moves by rate x gradient x min(1, limit / norm); the limit is a share of the norm here, or none."""
    work = LeastSquares(limit=10_000)
    batches = work.cut(0)
    assert len(batches) == 1
    loss = work.loss(batches[0], torch.Generator()) / work.targets(batches[0])["loss"]
    gradients = torch.autograd.grad(loss, list(work.parameters.values()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    limit = None if share is None else share * norm
    descent = torch.optim.SGD(work.parameters.values(), lr=1.0)
    before = [parameter.detach().clone() for parameter in work.parameters.values()]
    made = stepper(work, max_grad_norm=limit)
    made = replace(made, updates=[Update("train", {"loss": 1.0}, work.parameters, descent)])
    progress = Progress()
    made.step(progress, rate=lambda tokens: 1.0)
    assert progress.last_norms["train"] == pytest.approx(norm, rel=1e-12)
    factor = 1.0 if limit is None else min(1.0, limit / (norm + 1e-6))
    for old, new, gradient in zip(before, work.parameters.values(), gradients, strict=True):
        torch.testing.assert_close(old - new.detach(), 0.05 * factor * gradient, rtol=0, atol=1e-14)

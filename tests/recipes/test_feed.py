"""Which sequences a step sees: each once an epoch, from any point on, as the budget is spent."""

import numpy as np
import pytest
from made_samples import FRAMES, drawn, vocabulary
from toys import toy

from tunesmith.base import choices
from tunesmith.base.errors import DataError
from tunesmith.base.random import numpy_stream
from tunesmith.objectives.span_corruption import SpanCorruptionConfig
from tunesmith.recipes.feed import Feed, cut
from tunesmith.recipes.pretrain import make_plan
from tunesmith.recipes.pretrain_settings import PretrainSettings
from tunesmith.text.tokens import Tokens
from tunesmith.train.checkpoint import Progress


def make_feed(*, count=23, lengths=None, **changes):
    draw = np.random.default_rng(0)
    sizes = draw.integers(3, 20, count) if lengths is None else lengths
    tokens = Tokens([[list(range(200, 200 + n))] for n in sizes])
    tree = {"train": {"batch_size": 4, "max_steps": 100}, "data": {"max_tokens": 32}}
    for path, value in changes.items():
        part, _, name = path.partition("__")
        tree.setdefault(part, {})[name] = value
    return Feed(tokens, FRAMES["t5"], PretrainSettings.model_validate(tree))


def places(feed, steps, *, spent=0.5):
    progress = Progress()
    return [place for _ in range(steps) for place in feed.step(progress, spent)]


def test_each_epoch_has_each_sequence_once():
    found = places(make_feed(), 23)
    for epoch in range(4):
        numbers = [place.number for place in found if place.epoch == epoch]
        assert sorted(numbers) == list(range(23))
    assert [p.number for p in found if p.epoch == 0] != [p.number for p in found if p.epoch == 1]


@pytest.mark.parametrize("at", [1, 5, 6, 13])
def test_any_point_can_be_sought(at):
    """A new feed with the cursor alone goes on as the first one does, masks and all."""
    first, progress = make_feed(), Progress()
    for _ in range(at):
        first.step(progress, 0.5)
    again = Progress(cursor=dict(progress.cursor))
    one, other = first.step(progress, 0.5), (second := make_feed()).step(again, 0.5)
    assert one == other
    for place in one:
        a, b = first.draw(place), second.draw(place)
        assert a.sample.ids.tolist() == b.sample.ids.tolist()
        assert a.stream.random() == b.stream.random()


def test_a_cursor_behind_the_end_begins_the_next_epoch(monkeypatch):
    """As one from a longer corpus would be; it must not look for ever for what is not there."""
    feed, looks = make_feed(count=7), []

    def order(*key):
        looks.append(key)
        assert len(looks) < 9, "goes round in circles"
        return type(feed)._order_of(feed, *key)

    monkeypatch.setattr(feed, "_order_of", order)
    found = feed.step(Progress(cursor={"stage": 1, "epoch": 0, "offset": 12}), 0.5)
    assert [place.epoch for place in found] == [1] * 4


def test_masks_are_new_each_epoch_unless_they_are_static():
    def stream(feed, epoch):
        place = next(p for p in places(feed, 12 * 6) if p.epoch == epoch and p.number == 3)
        return feed.draw(place).stream.random()

    new = make_feed()
    assert stream(new, 0) != stream(new, 2)
    static = make_feed(objective__name="mlm", objective__masking="static", objective__copies=2)
    assert stream(static, 0) == stream(static, 2) != stream(static, 1)


def test_batches_grow():
    feed = make_feed(train__batch_size=16, train__batch_start=4, train__batch_warmup=0.5)
    assert [feed.batch_size(spent) for spent in (0.0, 0.25, 0.5, 1.0)] == [4, 10, 16, 16]
    progress = Progress()
    assert [len(feed.step(progress, spent)) for spent in (0.0, 0.25, 0.9)] == [4, 10, 16]


def test_short_sequences_come_first():
    feed = make_feed(lengths=[40] * 9, data__short_tokens=11, data__short_share=0.6)
    progress = Progress()
    early, late = feed.step(progress, 0.5), feed.step(progress, 0.6)
    assert {place.stage for place in early} == {0}
    assert {place.stage for place in late} == {1}
    assert max(len(feed.draw(place).sample) for place in early) == 11
    assert max(len(feed.draw(place).sample) for place in late) == 32
    assert progress.cursor == {"stage": 1, "epoch": 0, "offset": 4, "lead": 0}


def test_steps_of_similar_lengths():
    feed = make_feed(count=400, data__grouping="length")
    progress, spreads = Progress(), []
    for _ in range(100):
        sizes = [len(feed.draw(place).sample) for place in feed.step(progress, 0.5)]
        spreads.append(max(sizes) - min(sizes))
    assert np.mean(spreads) < 2
    assert progress.cursor == {"stage": 1, "epoch": 1, "offset": 0, "lead": 0}


@pytest.mark.parametrize("count", [401, 402, 403])
def test_steps_of_similar_lengths_in_every_epoch(count):
    """Only the step in which one epoch ends and the next begins may hold others; each sequence comes once an epoch."""
    feed = make_feed(count=count, data__grouping="length")
    progress, found = Progress(), []
    for _ in range(5 * count // 4):
        step = feed.step(progress, 0.5)
        found += step
        sizes = [len(feed.draw(place).sample) for place in step]
        within = len({place.epoch for place in step}) == 1
        assert max(sizes) - min(sizes) < (5 if within else 99), step
    for epoch in range(4):
        assert sorted(place.number for place in found if place.epoch == epoch) == list(range(count))
    again = Progress(cursor={"stage": 1, "epoch": 3, "offset": 7, "lead": 3})
    places, same = make_feed(count=count, data__grouping="length"), Progress(cursor=dict(again.cursor))
    assert feed.step(again, 0.5) == places.step(same, 0.5)


@pytest.mark.parametrize(
    ("max_tokens", "raw", "target"), [(512, 568, 114), (128, 141, 29), (256, 284, 58), (1024, 1137, 229)]
)
@pytest.mark.parametrize("input", ["packed", "doc_sentences", "full_sentences", "blocks"])
def test_a_long_text_gives_the_lengths_of_t5(input, max_tokens, raw, target):
    """568 tokens of the text make 512 for the encoder and 114 for the decoder, </s> among both."""
    objective = SpanCorruptionConfig()
    made = cut(
        Tokens([[list(range(200, 200 + 3 * raw))]]),
        FRAMES["t5"],
        choices.choose("input", input),
        objective,
        max_tokens=max_tokens,
        stream=lambda *parts: numpy_stream(0, *parts),
    )
    known = vocabulary(200 + 3 * raw)
    task = objective.build(toy("encoder_decoder", "none", max_positions=1024), known, max_tokens=max_tokens, seed=0)
    batch = task.prepare(drawn(*(made[i] for i in range(len(made)))))
    assert max(batch.source.layout.lengths) == max_tokens
    if input != "blocks":
        assert batch.source.layout.lengths == (max_tokens,) * 3
        assert batch.target.layout.lengths == (target,) * 3


class Evicting(Feed):
    """Another thread makes two other epochs after each look at what is there."""

    @property
    def _samples(self):
        found, self.kept = self.kept, {}
        return found

    @_samples.setter
    def _samples(self, found):
        self.kept = found


def test_epochs_that_another_thread_needs_are_in_nobodys_way():
    plain = make_feed(count=2)
    feed = Evicting(plain.tokens, plain.frame, plain.settings)
    for epoch in (0, 0, 1, 2):
        assert len(feed.samples(1, epoch)) == 2
    feed.kept = {(1, 0): plain.samples(1, 0)}
    assert feed.samples(1, 0) is plain.samples(1, 0)


@pytest.mark.parametrize("epochs", [1, 2.5])
def test_an_epoch_is_the_whole_text_once(epochs):
    """Half of the steps read sequences of a third of the length: not half of the text is read in them."""
    changes = {"train__max_steps": None, "train__epochs": epochs, "train__batch_start": 2, "train__batch_warmup": 0.25}
    feed = make_feed(lengths=[40] * 90, data__short_tokens=12, data__short_share=0.5, **changes)
    assert len(feed.samples(0, 0)) >= 2 * len(feed.samples(1, 0))
    plan, progress, read = make_plan(feed.settings, feed), Progress(), 0.0
    while plan.spent(progress) < 1:
        places = feed.step(progress, plan.spent(progress))
        read += sum(1 / len(feed.samples(place.stage, 0)) for place in places)
        progress.step += 1
    assert read == pytest.approx(epochs, abs=4 / 180)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 6), (2, 12), (0.1, 1), (3, 18)])
def test_epochs_of_one_length(epochs, steps):
    feed = make_feed(count=24, train__max_steps=None, train__epochs=epochs)
    assert make_plan(feed.settings, feed).steps == steps


def test_no_sequence_is_one_line():
    with pytest.raises(DataError, match="corpus: gives no sequence"):
        make_feed(lengths=[]).samples(1, 0)

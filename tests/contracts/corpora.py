"""Small corpora of which every token is known, special tokens around them, and keyed streams."""

import numpy as np
import tokenizers
from tokenizers import models, processors

from tunesmith.base import random
from tunesmith.text.sample import Drawn, Frame, Vocabulary, vocabulary_of
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.text.tokens import Tokens

PAD, BEGIN, END, MASK, FIRST = 0, 1, 2, 3, 5


def beginning() -> Frame:
    """What is made of a template that begins texts and does not end them, as LLaMA's does."""
    backend = tokenizers.Tokenizer(models.WordLevel({"<s>": BEGIN, "</s>": END, "a": FIRST}, unk_token="a"))
    pair = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BEGIN)])
    backend.post_processor = pair
    return vocabulary_of(Tokenizer(backend, {})).frame


FRAMES = {
    "bert": Frame((BEGIN,), (END,), (END,), (END,)),
    "roberta": Frame((BEGIN,), (END, END), (END,), (END,), second=0),
    "gpt2": Frame((), (END,), (END,), (END,), second=0),
    "xlnet": Frame((), (END,), (END, BEGIN), (END, BEGIN)),
    "llama": beginning(),
}


def keyed(seed=0, epoch=0):
    """Streams of one epoch."""
    return lambda *parts: random.numpy_stream(seed, epoch, *parts)


def numbered(lengths):
    """Documents given as lengths of their sentences; each token has an id of its own."""
    documents, number = [], FIRST
    for document in lengths:
        sentences = []
        for length in document:
            sentences.append(list(range(number, number + length)))
            number += length
        documents.append(sentences)
    return Tokens(documents), documents


def corpus(seed=0, *, documents=40, vocab_size=50, longest=12):
    """Documents of random sentences of random ordinary tokens."""
    draw = np.random.default_rng(seed)
    return Tokens(
        [
            [draw.integers(FIRST, vocab_size, draw.integers(1, longest)).tolist() for _ in range(draw.integers(1, 9))]
            for _ in range(documents)
        ]
    )


def vocabulary(size=50, *, begins=None, frame="bert"):
    """A vocabulary whose ids from 5 on are ordinary tokens, each a word by default."""
    special = np.arange(size) < FIRST
    return Vocabulary(
        size=size,
        special=special,
        begins_word=np.ones(size, dtype=bool) if begins is None else begins | special,
        mask=MASK,
        pad=PAD,
        begin=BEGIN,
        end=END,
        sentinels=(),
        sentence_ends=np.zeros(size, dtype=bool),
        frame=FRAMES[frame],
    )


def drawn(samples, *, seed=0, epoch=0, which=None):
    """Samples with their own streams."""
    chosen = range(len(samples)) if which is None else which
    return [Drawn(samples[i], random.numpy_stream(seed, epoch, "sample", i)) for i in chosen]

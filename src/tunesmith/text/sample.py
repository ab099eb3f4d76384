"""One sequence of a pretraining batch, before an objective has changed it; and what stands around its texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import decoders, models

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Bool, Int
from tunesmith.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sample:
    """A sequence: token ids with special tokens in place.

    Attributes:
        ids: Token ids, (T,).
        segments: Segment of each token, (T,).
        special: Which of them are special tokens: never masked, never predicted by masked objectives; (T,).
        at_cut: Which special tokens stand at a cut inside a document, where it neither begins nor ends, (T,).
        starts: First token of each sentence, special tokens aside; for objectives that move sentences.
        lengths: Tokens of each document; several where a row holds documents that must not see each other.
        pair: 0 where the second text follows the first, 1 where it does not (or they are swapped); None for one text.
    """

    ids: Int[np.ndarray, "T"]
    segments: Int[np.ndarray, "T"]
    special: Bool[np.ndarray, "T"]
    at_cut: Bool[np.ndarray, "T"]
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    pair: int | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Drawn:
    """A sample with the random stream that is its own: what is drawn for it depends on nothing else.

    Attributes:
        sample: The sample.
        stream: Keyed by seed, epoch and place of the sample in the data.
    """

    sample: Sample
    stream: np.random.Generator


@dataclass(frozen=True)
class Frame:
    """Special tokens around one text, and around a pair of texts.

    Attributes:
        before: Before the first text.
        between: Between the texts of a pair.
        after: Behind one text; at least one token.
        after_pair: Behind the second text of a pair.
        second: Segment of the second text, and of what stands behind it.
        last: Segment of the last special token, where it has one of its own (XLNet's <cls>).
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    after_pair: tuple[int, ...]
    second: int = 1
    last: int | None = None

    @property
    def single_size(self) -> int:
        """Special tokens around one text."""
        return len(self.before) + len(self.after)

    @property
    def pair_size(self) -> int:
        """Special tokens around a pair."""
        return len(self.before) + len(self.between) + len(self.after_pair)

    @property
    def separator(self) -> int:
        """The one special token between texts that follow each other in a sequence: what ends the first of them."""
        return self.after[0]

    def single(self, sentences: Sequence[Int[np.ndarray, "_"]], *, begins: bool = True, ends: bool = True) -> Sample:
        """One text, given as its sentences.

        Args:
            sentences: Its sentences.
            begins: Whether its document begins with it.
            ends: Whether its document ends with it.
        """
        return self.several([sentences], begins=begins, ends=ends)

    def several(
        self, texts: Sequence[Sequence[Int[np.ndarray, "_"]]], *, begins: bool = True, ends: bool = True
    ) -> Sample:
        """Texts that see each other as if they were one, with the separator between them.

        Args:
            texts: Each as its sentences, and each of another document.
            begins: Whether a document begins with the first.
            ends: Whether a document ends with the last.
        """
        made = self._make(texts, (self.separator,), self.after, None, second=0)
        made.at_cut[: len(self.before)] = not begins
        made.at_cut[len(made) - len(self.after) :] = not ends
        return made

    def pair(
        self, first: Sequence[Int[np.ndarray, "_"]], second: Sequence[Int[np.ndarray, "_"]], *, label: int | None
    ) -> Sample:
        """Two texts, given as their sentences."""
        return self._make([first, second], self.between, self.after_pair, label, second=self.second)

    def _make(
        self,
        texts: Sequence[Sequence[Int[np.ndarray, "_"]]],
        between: tuple[int, ...],
        after: tuple[int, ...],
        label: int | None,
        *,
        second: int,
    ) -> Sample:
        parts: list[np.ndarray] = [np.array(self.before, dtype=np.int64)]
        runs = [(len(self.before), True, 0)]  # tokens, special, segment
        starts: list[int] = []
        place = len(self.before)
        for number, text in enumerate(texts):
            if number:
                parts.append(np.array(between, dtype=np.int64))
                runs.append((len(between), True, second if number > 1 else 0))  # it belongs to the text before it
                place += len(between)
            begin = place
            for sentence in text:
                starts.append(place)
                place += len(sentence)
            parts.extend(text)
            runs.append((place - begin, False, second if number else 0))
        parts.append(np.array(after, dtype=np.int64))
        runs.append((len(after), True, second if len(texts) > 1 else 0))
        counts, special, segments = zip(*runs, strict=True)
        numbers = np.repeat(np.array(segments, dtype=np.int64), counts)
        if self.last is not None:
            numbers[-1] = self.last
        return Sample(
            ids=np.concatenate(parts),
            segments=numbers,
            special=np.repeat(np.array(special, dtype=bool), counts),
            at_cut=np.zeros(len(numbers), dtype=bool),
            starts=tuple(starts),
            lengths=(place + len(after),),
            pair=label,
        )


def joined(samples: Sequence[Sample]) -> Sample:
    """Several samples as one row whose documents do not see each other."""
    offsets = np.cumsum([0, *(len(sample) for sample in samples)])
    starts = [start + int(offset) for sample, offset in zip(samples, offsets, strict=False) for start in sample.starts]
    return Sample(
        ids=np.concatenate([sample.ids for sample in samples]),
        segments=np.concatenate([sample.segments for sample in samples]),
        special=np.concatenate([sample.special for sample in samples]),
        at_cut=np.concatenate([sample.at_cut for sample in samples]),
        starts=tuple(starts),
        lengths=tuple(length for sample in samples for length in sample.lengths),
    )


@dataclass(frozen=True)
class Vocabulary:
    """What objectives need to know of a tokenizer.

    Attributes:
        size: One more than the highest id.
        special: Which ids are special tokens, (V,).
        begins_word: Which ids begin a word, (V,); special tokens do.
        mask: The mask token; None where there is none.
        pad: The padding token; None where there is none.
        begin: What begins a text, such as [CLS] or <s>; None where there is none.
        end: What ends a text, such as [SEP] or </s>; None where there is none.
        sentinels: T5's sentinels in the order of use; empty where there are none.
        sentence_ends: Which ids end a sentence, such as that of the full stop, (V,).
        frame: Special tokens around texts.
    """

    size: int
    special: Bool[np.ndarray, "V"]
    begins_word: Bool[np.ndarray, "V"]
    mask: int | None
    pad: int | None
    begin: int | None
    end: int | None
    sentinels: tuple[int, ...]
    sentence_ends: Bool[np.ndarray, "V"]
    frame: Frame

    def need_mask(self, objective: str) -> int:
        """The mask token.

        Raises:
            CheckpointError: There is none.
        """
        if self.mask is None:
            raise CheckpointError(
                f"tokenizer: has no [MASK] or <mask> token, which objective {objective} needs: take another tokenizer, "
                "or leave tokenizer unset to train one"
            )
        return self.mask

    def ordinary(self) -> Int[np.ndarray, "N"]:
        """Ids of tokens that are not special: what random replacements are drawn from."""
        return np.flatnonzero(~self.special)


_MASKS = ("[MASK]", "<mask>", "<|mask|>")
_BEGINS = ("[CLS]", "<s>", "<cls>", "<bos>", "<|startoftext|>", "<|begin_of_text|>")
_ENDS = ("[SEP]", "</s>", "<sep>", "<eos>", "<|endoftext|>", "<|end_of_text|>")
_SENTENCE_ENDS = ".!?。！？｡؟۔।"


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """What objectives need to know of a tokenizer.

    Raises:
        CheckpointError: It puts nothing around a text that tells where the text ends.
    """
    backend = tokenizer.backend
    size = tokenizer.vocab_size
    special = np.zeros(size, dtype=bool)
    for i, token in backend.get_added_tokens_decoder().items():
        special[i] = token.special
    names = backend.get_vocab(with_added_tokens=True)
    pieces = [""] * size
    for piece, i in names.items():
        pieces[i] = piece
    model, byte_level = backend.model, isinstance(backend.decoder, decoders.ByteLevel)
    if isinstance(model, models.WordPiece):  # marks what goes on
        begins = np.array([not piece.startswith(model.continuing_subword_prefix) for piece in pieces], dtype=bool)
    elif any(piece.startswith(("Ġ", "▁")) for piece in pieces):  # byte-level BPE and Unigram mark what begins
        begins = np.array([piece.startswith(("Ġ", "▁", "Ċ", "ĉ", "č")) for piece in pieces], dtype=bool)
    else:
        begins = np.ones(size, dtype=bool)
    texts = [decoders.ByteLevel().decode([piece]) for piece in pieces] if byte_level else pieces
    ends = np.array([text[-1:] in _SENTENCE_ENDS and text != "" for text in texts], dtype=bool)

    def first(candidates: tuple[str, ...], *roles: str) -> int | None:
        """The token that the tokenizer's files name for a role, else one that bears a usual name."""
        ids = (*(tokenizer.role_id(role) for role in roles), *(names.get(name) for name in candidates))
        return next((i for i in ids if i is not None), None)

    frame = _frame(tokenizer, end=first(_ENDS, "eos_token", "sep_token"))
    sentinels = []
    while f"<extra_id_{len(sentinels)}>" in names:
        sentinels.append(names[f"<extra_id_{len(sentinels)}>"])
    return Vocabulary(
        size=size,
        special=special,
        begins_word=begins | special,
        mask=first(_MASKS, "mask_token"),
        pad=tokenizer.pad_id,
        begin=frame.before[0] if frame.before else None if backend.num_special_tokens_to_add(False) else first(_BEGINS),
        end=frame.after[0],
        sentinels=tuple(sentinels),
        sentence_ends=ends & ~special,
        frame=frame,
    )


def _frame(tokenizer: Tokenizer, *, end: int | None) -> Frame:
    """What the tokenizer's own template puts around texts; the end token alone where it has no template."""
    one, two = tokenizer.backend.encode("a"), tokenizer.backend.encode("a", "a")
    places = [i for i, sequence in enumerate(one.sequence_ids) if sequence is not None]
    if not places:
        raise CheckpointError("tokenizer: encodes the letter a as nothing: is it whole?")
    before, after = one.ids[: places[0]], one.ids[places[-1] + 1 :]
    ending = () if end is None else (end,)
    if not after and not ending:
        raise CheckpointError(
            "tokenizer: has no token that ends a text (such as </s>, [SEP] or <|endoftext|>): take another one, "
            "or leave tokenizer unset to train one"
        )
    if not before and not after:
        return Frame((), ending, ending, ending, second=0)
    firsts = [i for i, sequence in enumerate(two.sequence_ids) if sequence == 0]
    seconds = [i for i, sequence in enumerate(two.sequence_ids) if sequence == 1]
    between, after_pair = two.ids[firsts[-1] + 1 : seconds[0]], two.ids[seconds[-1] + 1 :]
    if not after:  # Llama's kind begins texts and leaves their end to the one who trains
        after, between, after_pair = [*ending], [*ending, *between], [*ending]
    return Frame(
        before=tuple(before),
        between=tuple(between),
        after=tuple(after),
        after_pair=tuple(after_pair),
        second=two.type_ids[seconds[0]],
        last=one.type_ids[-1] if one.type_ids[-1] != one.type_ids[places[-1]] else None,
    )

"""Cut a document into sentences by rules that know no language.

A line break ends a sentence. Inside a line one ends behind ``. ! ? …`` or their like in other scripts, closing quotes
and brackets included, where white space follows and then something that can begin a sentence: anything but a
lower-case letter. The full stops of Chinese and Japanese need no white space.

A full stop does not end a sentence behind a single letter with case (*J. Smith*, *U.S. Army*, *e.g. This*), behind a
number of one or two digits (*3. Oktober*, *1. First*), or behind an ASCII word of at most four letters, not all
upper-case, that has no vowel (*Dr. Who*, *vs. Them*, *Nr. 5*).

What it gets wrong: longer abbreviations before a capital or a digit are ends (*Prof. Smith*, *Fig. 3*, *Inc. Its*);
real ends behind one letter or one or two digits are missed (*Plan B. Then*, *He was 12. Then*); so is one before a
lower-case letter (*iPhone*), and every end in scripts that mark none, such as Thai. For pretraining it matters little:
the text as a whole stays the same.
"""

import re

_STOPS = ".!?…‽؟۔।॥։።፧៕"
_TIGHT = "。！？｡︒﹖﹗။"  # these scripts put no space behind them
_CLOSING = "\"'”’»)\\]}›」』）】》〉"
_OPENING = "\"'“‘«(\\[{‹「『（【《〈„‚¿¡—–*#-"
_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"

_END = re.compile(
    f"(?P<breaks>[{_BREAKS}]+)"
    f"|(?<![{_STOPS}])(?P<stops>[{_STOPS}]++)[{_CLOSING}]*+(?=[^\\S{_BREAKS}]++[{_OPENING}]*+(?P<next>[^\\s{_OPENING}]))"
    f"|[{_TIGHT}]++[{_CLOSING}{_TIGHT}{_STOPS}]*+"
)
_VOWELS = frozenset("aeiouyAEIOUY")

MAX_SENTENCE_CHARACTERS = 100_000  # longer ones are cut: tokenizers need time and memory beyond measure for them


def split_sentences(text: str) -> list[str]:
    """Sentences that together are the text: each with the spaces before it and the line breaks behind it.

    A piece of more than 100,000 characters is cut at white space, or where there is none, anywhere.
    """
    found: list[str] = []
    start = 0
    for match in _END.finditer(text):
        if match["stops"] is not None and not _ends(text, match):
            continue
        _add(found, text[start : match.end()])
        start = match.end()
    _add(found, text[start:])
    return found


def _ends(text: str, match: re.Match[str]) -> bool:
    if match["next"].islower():
        return False
    if match["stops"] != ".":
        return True
    at = match.start()
    start = at
    while start > max(0, at - 5) and text[start - 1].isalnum():  # longer words are no abbreviations here
        start -= 1
    word = text[start:at]
    if word.isdigit():
        return len(word) > 2
    if len(word) == 1:
        return word.lower() == word.upper()
    return not (
        len(word) <= 4 and word.isascii() and word.isalpha() and not word.isupper() and _VOWELS.isdisjoint(word)
    )


def _add(found: list[str], piece: str) -> None:
    while len(piece) > MAX_SENTENCE_CHARACTERS:
        space = piece.rfind(" ", 1, MAX_SENTENCE_CHARACTERS)
        cut = space if space > 0 else MAX_SENTENCE_CHARACTERS
        found.append(piece[:cut])
        piece = piece[cut:]
    if not piece:
        return
    if found and not piece.strip():  # white space alone is no sentence
        found[-1] += piece
    else:
        found.append(piece)

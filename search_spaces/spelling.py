"""Near misses: what somebody who wrote an unknown word may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Find the known word that this one most likely is a slip of, if any.

    ``cutoff`` is the least likeness in [0, 1]; difflib's own 0.6 forgives one or two slips in a
    short word.
    """
    folded = {_folded(each): each for each in sorted(known)}
    close = get_close_matches(_folded(word), folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Phrase the mend for an unknown ``word``: its nearest neighbour, else all that is known."""
    words = sorted(known)
    close = nearest(word, words)
    if close is not None:
        return f"did you mean {close!r}?"
    return f"use one of: {', '.join(words)}"


def _folded(word: str) -> str:
    return word.casefold().replace("_", "-")

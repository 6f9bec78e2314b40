"""Which labelled examples stand before a text: the first, or those that have most words in common with it.

Likeness is BM25 (Robertson and Zaragoza 2009, The Probabilistic Relevance Framework: BM25 and Beyond, formula 3.15, with the
idf of Lucene, which is never negative): rare words that both have count most, and long examples have no advantage.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

Selection = Literal["first", "similar"]

MAX_EXAMPLES: Final = 64
"""Before one text."""

_K1, _B = 1.2, 0.75
_WORDS: Final = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORDS.findall(text.casefold())


class SimilarTexts:
    """Texts that can be asked which of them are most like another."""

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [Counter(words_of(text)) for text in texts]
        self._num_texts = len(counted)
        num_with = Counter(word for counts in counted for word in counts)
        idf = {word: math.log1p((len(counted) - num + 0.5) / (num + 0.5)) for word, num in num_with.items()}
        mean_length = max(1.0, sum(counts.total() for counts in counted) / max(1, len(counted)))
        self._weights: dict[str, list[tuple[int, float]]] = {}
        for number, counts in enumerate(counted):
            norm = _K1 * (1 - _B + _B * counts.total() / mean_length)
            for word, count in counts.items():
                weight = idf[word] * count * (_K1 + 1) / (count + norm)
                self._weights.setdefault(word, []).append((number, weight))

    def scores(self, text: str) -> list[float]:
        """How much each text is like this one."""
        found = [0.0] * self._num_texts
        for word in sorted(set(words_of(text)) & self._weights.keys()):  # in one order: sums of floats depend on it
            for number, weight in self._weights[word]:
                found[number] += weight
        return found

    def most_like(self, text: str, count: int) -> list[int]:
        """The numbers of the `count` texts that are most like this one, the most alike first; equals in their order."""
        scores = self.scores(text)
        return sorted(range(len(scores)), key=lambda number: -scores[number])[:count]

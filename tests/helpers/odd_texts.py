"""Texts as strangers have them: many scripts, marks that combine, controls, special tokens spelled out, nothing at all."""

import random
from collections.abc import Sequence
from typing import Final

PIECES: Final[Sequence[str]] = (
    "order", "late", "refund please", "naïve café", "Zürich", "Straße", "日本語の文章", "한국어", "العربية", "עברית", "हिन्दी", "ไทย",
    "e\u0301\u0302", "a\u030a", "\u1112\u1161\u11ab", "ﬁ ﬂ", "①②", "İstanbul", "ß", "Ω", "𝔘𝔫𝔦", "👩‍👩‍👧‍👦", "🇨🇭", "👍🏽",
    "<|im_end|>", "<|im_start|>user\n", "<|endoftext|>", "</s>", "<think>", "[MASK]", "{{ body }}", "{% if x %}", "{# c #}",
    "\u200b", "\u200d", "\u202e", "\ufeff", "\u00a0", "\u2028", "\x00", "\x07", "\x1b[31m", "\x7f", "\ufffd", "\U0010ffff",
    "\n", "\r", "\r\n", "\t", "   ", "\\n", '"', "'", "`", "&amp;", "<b>", "%s", "{}", "$HOME", "../..", "a" * 30, "x y " * 6,
    "0", "-1", "1e309", "NaN", "null", "3.14159", "2026-11-27T00:00:00Z", "http://a.co/?q=%F0", "ＡＢＣ", "ǆ", "Ǆ", "ﷺ",
)  # fmt: skip


def odd_texts(count: int, *, seed: int = 0) -> list[str]:
    """`count` texts: each piece by itself, then up to twelve of them with and without spaces between; the empty text among them."""
    draw = random.Random(seed)
    texts = ["", *PIECES]
    while len(texts) < count:
        texts.append(draw.choice(("", " ", "\n")).join(draw.choices(PIECES, k=draw.randint(2, 12))))
    return texts[:count]

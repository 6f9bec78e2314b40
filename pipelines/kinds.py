"""The kinds of dead letters that preparing and finishing a row can make: a short closed set that reports count by.

A row that cannot even be read has kinds of its own, in `pipelines.units.reading`.
"""

from typing import Final

NULL_VALUE: Final = "null_value"
"""A template printed or computed with a null, or the column of token ids is null."""

MISSING_VALUE: Final = "missing_value"
"""A template used a column or a field that the row does not have."""

INVALID_VALUE: Final = "invalid_value"
"""A value the task needs cannot be used: text that is not UTF-8, a date out of range, token ids
outside the vocabulary."""

TEMPLATE_ERROR: Final = "template_error"
"""A template failed on this row in another way, or went over its limits."""

TOKENIZER_ERROR: Final = "tokenizer_error"
"""The checkpoint's tokenizer failed on this row's text, or went over its limits."""

EMPTY_TEXT: Final = "empty_text"
"""The rendered text has no tokens, and there is nothing to answer."""

TOO_LONG: Final = "too_long"
"""The row needs more tokens than the model takes."""

REFUSED: Final = "refused"
"""The engine refused the row's request."""

INTERNAL_ERROR: Final = "internal_error"
"""Our own code failed on the row in an unexpected way; the message says where."""

NOT_FINITE: Final = "not_finite"
"""The model answered with values that are not numbers."""

"""What a terminal is shown: text alone. The streams of a command escape all else that is written
to them.

A terminal obeys control characters: they set its title, clear it, write over what was said, turn
text round. Labels, names of files and columns, and messages of servers come from others, and any
of them may end up in a sentence of ours. So the characters are escaped where everything passes, at
the streams; code that draws on a terminal asks for the stream below (`drawing_on`). Secrets in
URLs are left out in the same place, wherever a sentence got them from.
"""

import io
import re
import sys
from typing import TextIO

from models.checkpoint.url_secrets import redacted

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LAYOUT = "\n\t"


def escaped(text: str) -> str:
    """The text with an escape, such as \\x1b, for every character that a terminal would obey but line ends and tabs."""
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in _LAYOUT else _escape(found[0]), text)


def in_a_line(text: str) -> str:
    """The same with line ends and tabs escaped too."""
    return _UNPRINTABLE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    return repr(character)[1:-1]


class TerminalText(io.TextIOBase):
    """A text stream that escapes what is written to it, leaves secrets out, and hands it on."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors

    def write(self, text: str) -> int:
        self.stream.write(escaped(redacted(text)))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def close(self) -> None:
        """Leaves the stream below open: it is the process's own."""


def escape_standard_streams() -> None:
    """Has `sys.stdout` and `sys.stderr` escape what is written to them, from now on."""
    if not isinstance(sys.stdout, TerminalText):
        sys.stdout = TerminalText(sys.stdout)
    if not isinstance(sys.stderr, TerminalText):
        sys.stderr = TerminalText(sys.stderr)


def drawing_on(stream: TextIO | TerminalText) -> TextIO:
    """The stream to draw on with a terminal's own controls; what is not ours goes through `in_a_line` first."""
    return stream.stream if isinstance(stream, TerminalText) else stream

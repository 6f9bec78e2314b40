"""The path of a key in a document, as code and as people write it."""

import re

KeyPath = tuple[str | int, ...]

_PLAIN = re.compile(r"[\w-]+")


def dotted(path: KeyPath) -> str:
    """`("task", "labels", 0)` as people write it: `task.labels[0]`. A key that is not letters, digits, dashes and underscores is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _PLAIN.fullmatch(part) else repr(part)
            text += f".{name}" if text else name
    return text


def key_path(name: str) -> KeyPath:
    """The other way round, for plain keys: `task.labels[0]` as `("task", "labels", 0)`."""
    return tuple(int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", name))

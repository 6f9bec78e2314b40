"""Which keys of a spec hold secrets, by their names and by what their URLs hold; never the secrets."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jobs.spec.document.key_paths import KeyPath, dotted
from jobs.spec.document.yaml_reading import SECRETS
from models.checkpoint.url_secrets import has_secret

_SECRET_NAME = re.compile(
    r"secret|passw|token|credential|signature|(^|_)(key|sas|pwd|auth)$|connection_string|private", re.IGNORECASE
)


def secret_keys(spec: Mapping[str, Any]) -> list[str]:
    """The keys as people write them, in the order of the spec."""
    return [dotted(path) for path in _found(spec, ())]


def _found(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        here = (*path, key)
        if isinstance(item, Mapping | list):
            yield from _found(item, here)
        elif isinstance(item, str) and item:
            is_option = SECRETS in path and isinstance(key, str) and _SECRET_NAME.search(key) is not None
            if is_option or ((len(path) <= 2 or path[0] == "cascade") and has_secret(item)):
                yield here

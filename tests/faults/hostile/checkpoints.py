"""Checkpoints of the demo, as a stranger would change them.

One has a chat template with every bomb in it, and a tokenizer that panics or explodes.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from jobs.demo import CHECKPOINTS
from tests.helpers.models.template_bombs import BOMBS

BOMB = "bomb"
"""The variable of `chat_template_kwargs` that names the template to be rendered."""

PANICKING_TEXT = "x" * 40 + "z"
"""A regular expression of the tokenizer gives up on it, and the library answers with a panic."""

EXPLODING_TEXT = "\x01" * 4000
"""Each character becomes a megabyte."""

_PLAIN = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
_EXPLOSION = {"type": "Replace", "pattern": {"String": "\x01"}, "content": "y " * 500_000}
_RETRIES: dict[str, Any] = {
    "type": "Split",
    "pattern": {"Regex": "(x+x+)+y"},
    "behavior": "Isolated",
    "invert": False,
}


def save_long(folder: Path, *, num_positions: int) -> Path:
    """The demo's causal model for prompts of so many tokens."""
    return _copied("causal", folder, max_position_embeddings=num_positions)


def save_hostile(folder: Path) -> Path:
    """A causal model that answers as the demo's does, until it is asked for a bomb."""
    _copied("causal", folder)
    cases = "".join(f"{{% elif {BOMB} == {name!r} %}}{source}" for name, source in BOMBS.items())
    template = f"{{% if {BOMB} is not defined %}}{_PLAIN}{cases}{{% endif %}}"
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [tokenizer["normalizer"], _EXPLOSION]}
    tokenizer["pre_tokenizer"]["pretokenizers"].insert(0, _RETRIES)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def _copied(name: str, folder: Path, **config: Any) -> Path:
    shutil.copytree(CHECKPOINTS / name, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder

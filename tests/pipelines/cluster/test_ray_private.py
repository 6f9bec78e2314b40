"""Private names of Ray stand in one file, and are all there."""

import re
from pathlib import Path

import pytest

from pipelines.cluster import ray_private

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Serve's own, while it is imported
FENCE = Path(ray_private.__file__)
PRIVATE = re.compile(r"\bray(\.\w+)*\._\w+|from ray(\.\w+)* import .*\b_[a-z]\w+|\bray\.core\b")


def test_this_release_of_ray_has_all_of_them() -> None:
    assert ray_private.check_names() == []


@pytest.mark.parametrize(
    "name", ["ray.nothing:x", "ray.data:Dataset._nothing", "ray._private.log:PlainRayHandler._nothing"]
)
def test_one_that_is_gone_is_told_in_words(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(ray_private, "NAMES", {"the end of the world": (name,)})
    [said] = ray_private.check_names()
    assert said.startswith(
        f"Ray has no {name} any more, which Millrace needs for the end of the world: find what does it now"
    )


def test_no_other_file_knows_one() -> None:
    root = FENCE.parents[2]
    files = [path for package in ("models", "actors", "pipelines", "jobs") for path in (root / package).rglob("*.py")]
    found = {path.relative_to(root): PRIVATE.findall(path.read_text()) for path in files if path != FENCE}
    assert {path: names for path, names in found.items() if names} == {}
    assert PRIVATE.search(FENCE.read_text())

"""The token of this user's Ray clusters, and clusters that ask for none."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from grpc import StatusCode

from pipelines.cluster import token as cluster_token
from pipelines.cluster.token import secure_token_file, warn_if_open
from tests.helpers.pipelines.control_stores import control_store
from tests.helpers.pipelines.running import short_folder

REMEDY = "the next one makes a new token"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".ray/auth_token"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_for_this_user_alone(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = os.umask(0)
    try:
        secure_token_file(makes_one=True)
    finally:
        os.umask(before)
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    assert len(bytes.fromhex(file.read_text())) == 32
    assert [path.name for path in file.parent.iterdir()] == ["auth_token"]
    token = file.read_text()
    secure_token_file(makes_one=True)
    assert file.read_text() == token
    assert not caplog.records


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o644, 0o755), (0o640, 0o700), (0o600, 0o777)])
def test_a_token_that_others_could_read_is_closed_and_said(
    file: Path, caplog: pytest.LogCaptureFixture, file_mode: int, folder_mode: int
) -> None:
    file.parent.mkdir()
    file.write_text("ab" * 32)
    file.chmod(file_mode)
    file.parent.chmod(folder_mode)
    secure_token_file(makes_one=False)
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    assert file.read_text() == "ab" * 32
    assert REMEDY in caplog.text
    caplog.clear()
    secure_token_file(makes_one=False)
    assert not caplog.records


def test_a_token_that_cannot_be_closed_is_said(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.parent.mkdir()
    file.write_text("x")
    file.chmod(0o644)

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    secure_token_file(makes_one=False)
    assert "cannot be kept from other users (Operation not permitted)" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "x"), ("RAY_AUTH_TOKEN_PATH", "/x")]
)
def test_no_token_is_made_where_the_environment_says_otherwise(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    secure_token_file(makes_one=True)
    assert not file.exists()


def test_joining_a_cluster_makes_no_token(file: Path) -> None:
    secure_token_file(makes_one=False)
    assert not file.parent.exists()


@pytest.mark.parametrize("asks_for_token", [True, False])
def test_a_cluster_that_takes_anybody_is_said_in_one_line(
    caplog: pytest.LogCaptureFixture, asks_for_token: bool
) -> None:
    with control_store(StatusCode.UNAUTHENTICATED if asks_for_token else None) as address:
        warn_if_open(address)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (0 if asks_for_token else 1)
    assert all("asks for no token" in line and "RAY_AUTH_MODE=token" in line and "\n" not in line for line in said)


def test_a_cluster_with_certificates_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with control_store(None) as address:
        warn_if_open(address)
    assert not caplog.records


def test_nobody_at_the_address_is_no_open_cluster(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster_token, "_ASK_S", 0.2)
    warn_if_open("127.0.0.1:1")
    assert not caplog.records


@pytest.mark.cluster("own")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_cluster_of_our_own_asks_for_a_token_that_is_ours_alone(file: Path, tmp_path: Path) -> None:
    """A real one, started as a run starts it, in a process of its own."""
    code = (
        "import ray\nfrom pipelines.cluster.connect import joined\nfrom pipelines.cluster.token import _takes_anybody\n"
        "with joined(None, num_cpus=1):\n    print('open' if _takes_anybody(ray.get_runtime_context().gcs_address) else 'closed')\n"
    )
    with short_folder() as folder:
        env = {**os.environ, "RAY_TMPDIR": str(folder)}
        env.pop("RAY_ADDRESS", None)
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=240, check=False
        )
    assert done.stdout.strip() == "closed", done.stderr
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)

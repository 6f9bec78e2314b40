"""Who may ask, from where, and how much."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from actors.errors import KeyFileError, ListenError
from actors.http.limits import RequestLimits
from actors.http.security import ApiKeys, check_listen
from actors.online.local import LocalModel
from tests.helpers.actors import plain_http
from tests.helpers.actors.serving import served, serving

KEY, OTHER = "one-long-key", "another-long-key"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.txt"
    write(path, f"{KEY}\n\n{OTHER}\n")
    return path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def test_every_key_of_the_file_is_known_and_no_other(key_file: Path) -> None:
    keys = ApiKeys(key_file)
    assert keys.allow(KEY.encode())
    assert keys.allow(OTHER.encode())
    for wrong in (b"", KEY.encode()[:-1], KEY.encode() + b"x", f"{KEY}\n{OTHER}".encode(), "käy".encode()):
        assert not keys.allow(wrong)


def test_the_file_is_read_again_when_it_changes(key_file: Path) -> None:
    keys = ApiKeys(key_file)
    replacement = key_file.with_name("new.txt")
    write(replacement, "a-third-key\n")
    replacement.rename(key_file)
    assert keys.allow(b"a-third-key")
    assert not keys.allow(KEY.encode())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_that_others_can_read_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(KeyFileError, match="make it 0600"):
        ApiKeys(key_file)


def test_a_key_file_that_becomes_readable_to_others_opens_to_nobody(key_file: Path) -> None:
    keys = ApiKeys(key_file)
    key_file.chmod(0o644)
    for _ in range(2):
        with pytest.raises(KeyFileError):
            keys.allow(KEY.encode())
    key_file.chmod(0o600)
    assert keys.allow(KEY.encode())


def test_a_key_file_that_is_missing_empty_or_a_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "empty", "\n \n")
    for name in ("missing", "empty", "."):
        with pytest.raises(KeyFileError):
            ApiKeys(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_file_that_cannot_be_read_is_refused(key_file: Path) -> None:
    key_file.chmod(0)
    with pytest.raises(KeyFileError):
        ApiKeys(key_file)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"])
def test_without_keys_loopback_may_be_listened_on(host: str) -> None:
    check_listen(host, has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "", "localhost.example.org"])
def test_without_keys_no_network_may_be_listened_on(host: str) -> None:
    check_listen(host, has_keys=True)
    with pytest.raises(ListenError):
        check_listen(host, has_keys=False)


@pytest.fixture
def guarded(key_file: Path, causal_path: Path, causal: LocalModel) -> Iterator[str]:
    with serving([served("tiny", causal_path, causal)], keys=ApiKeys(key_file)) as address:
        yield address


def test_without_a_key_nothing_is_told_but_that_the_service_lives(guarded: str) -> None:
    for path in ("/health", "/ready"):
        assert plain_http.get(guarded + path).status_code == 200
    for path in ("/metrics", "/v1/models", "/openapi.json", "/nothing", "/health/"):
        response = plain_http.get(guarded + path)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert plain_http.post(f"{guarded}/v1/completions", content=b"{").status_code == 401


def test_a_key_opens_everything(guarded: str) -> None:
    headers = {"authorization": f"Bearer {OTHER}"}
    for path in ("/metrics", "/v1/models", "/openapi.json"):
        assert plain_http.get(guarded + path, headers=headers).status_code == 200
    document = plain_http.get(f"{guarded}/openapi.json", headers=headers).json()
    assert document["paths"]["/v1/completions"]["post"]["security"] == [{"key": []}]
    assert "security" not in document["paths"]["/health"]["get"]


def test_the_client_gets_an_authentication_error(guarded: str) -> None:
    for key in ("wrong", KEY + "x"):
        with openai.OpenAI(base_url=f"{guarded}/v1", api_key=key, max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as raised:
                client.models.list()
            assert raised.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=f"{guarded}/v1", api_key=KEY, max_retries=0) as client:
        assert client.completions.create(model="tiny", prompt="x", max_tokens=1).choices


def test_a_key_file_that_breaks_while_serving_is_503(guarded: str, key_file: Path) -> None:
    key_file.chmod(0o644)
    response = plain_http.get(f"{guarded}/v1/models", headers={"authorization": f"Bearer {KEY}"})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "keys_unavailable"


@pytest.fixture(scope="module")
def small(causal_path: Path, causal: LocalModel) -> Iterator[str]:
    limits = RequestLimits(max_body_bytes=1000, max_request_tokens=50)
    with serving([served("tiny", causal_path, causal)], limits=limits) as address:
        yield address


def test_a_body_over_the_limit_is_413_whether_it_says_so_or_not(small: str) -> None:
    content = b'{"model": "tiny", "prompt": "' + b"x" * 1000 + b'"}'
    said = plain_http.post(f"{small}/v1/completions", content=content)
    unsaid = plain_http.post(f"{small}/v1/completions", content=iter([content[:500], content[500:]]))
    for response in (said, unsaid):
        assert response.status_code == 413
        assert "1000 bytes" in response.json()["error"]["message"]


def test_all_tokens_of_a_request_are_counted_together(small: str) -> None:
    response = plain_http.post(f"{small}/v1/embeddings", json={"model": "tiny", "input": [[5] * 20] * 3})
    assert response.status_code == 400
    assert "60" in response.json()["error"]["message"]
    assert "50" in response.json()["error"]["message"]


def test_a_service_without_keys_answers_only_to_names_of_this_machine(small: str) -> None:
    response = plain_http.get(f"{small}/v1/models", headers={"host": "attacker.example"})
    assert response.status_code == 403
    assert plain_http.get(f"{small}/health", headers={"host": "10.0.0.1"}).status_code == 200
    assert plain_http.get(f"{small}/v1/models", headers={"host": "localhost:8000"}).status_code == 200
    assert plain_http.get(f"{small}/v1/models", headers={"host": "[::1]:8000"}).status_code == 200


def test_other_origins_are_not_let_in(small: str) -> None:
    asked = {"origin": "http://attacker.example", "access-control-request-method": "POST"}
    response = httpx.options(f"{small}/v1/completions", headers=asked)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]
    simple = plain_http.post(
        f"{small}/v1/completions", content=b'{"model": "tiny", "prompt": "x"}', headers={"content-type": "text/plain"}
    )
    assert simple.status_code == 400

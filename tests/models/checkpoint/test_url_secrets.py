"""Passwords, signatures and tokens in URLs: what is said without them, and which URL is the same signed anew."""

import pytest

from models.checkpoint.url_secrets import has_secret, public_url, redacted

S3 = "https://b.s3.amazonaws.com/in/t.jsonl?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F2026&X-Amz-Date=1&X-Amz-Expires=60&X-Amz-Signature=feedbeef"
GCS = "https://storage.googleapis.com/b/t.jsonl?X-Goog-Algorithm=G&X-Goog-Credential=x&X-Goog-Signature=feedbeef"
AZURE = "https://a.blob.core.windows.net/c/t.jsonl?sv=2024-01-01&st=1&se=2&sr=b&sp=r&sig=feed%2Fbeef%3D"
CLOUDFRONT = "https://d1.cloudfront.net/t.jsonl?Expires=1&Signature=feedbeef&Key-Pair-Id=K1"
PLAIN = "https://host/t.jsonl?token=feedbeef"


@pytest.mark.parametrize("url", [S3, GCS, AZURE, CLOUDFRONT, PLAIN])
def test_a_signature_is_no_part_of_what_a_url_is_called(url: str) -> None:
    assert public_url(url) == url.partition("?")[0]
    assert public_url(url.replace("feed", "dead")) == public_url(url)
    assert has_secret(url)
    assert not has_secret(public_url(url))


@pytest.mark.parametrize(
    "path",
    [
        "/data/a?b=c.jsonl", "in/part-?.parquet", "s3://bucket/part-?.parquet", "https://host/t.jsonl", "s3://b/k?versionId=0123456789abcdef0123456789abcdef",
        "https://host/get?file=a.jsonl&rev=2", "abfs://container@account.dfs.core.windows.net/x", "https://[::1", "https://[bad?token=1",
    ],
)  # fmt: skip
def test_what_says_which_file_it_is_stays(path: str) -> None:
    assert public_url(path) == path
    assert not has_secret(path)


def test_a_long_value_of_an_unknown_parameter_is_told_by_its_hash() -> None:
    one, other = (public_url(f"https://host/t.jsonl?id={digit * 40}&sig=x") for digit in "ab")
    assert one != other
    assert one.startswith("https://host/t.jsonl?id=sha256-")
    assert "aaaa" not in one


def test_passwords_and_tokens_in_the_place_of_users_are_secrets() -> None:
    assert has_secret("s3://user:hush@bucket/x")
    assert has_secret("https://ghp_hush@host/x")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"cannot read {S3}: 403", "cannot read https://b.s3.amazonaws.com/in/t.jsonl?...: 403"),
        (f"404, message='Not Found', url='{GCS}'", "404, message='Not Found', url='https://storage.googleapis.com/b/t.jsonl?...'"),
        (f"({AZURE})", "(https://a.blob.core.windows.net/c/t.jsonl?...)"),
        ("at ftp://user:hush@host:21/x.", "at ftp://user:...@host:21/x."),
        ("s3:/user:hush@bucket", "s3:/user:...@bucket"),
        ("https://hush@host/x", "https://...@host/x"),
        ("GET /in/t.jsonl?X-Amz-Signature=hush&versionId=3 HTTP/1.1", "GET /in/t.jsonl?X-Amz-Signature=...&versionId=3 HTTP/1.1"),
        ("a=b is 3 ? x=1 : y", "a=b is 3 ? x=1 : y"),
        ("http://127.0.0.1:8000/v1; Ctrl-C ends it", "http://127.0.0.1:8000/v1; Ctrl-C ends it"),
        ("s3://bucket/part-?.parquet matches nothing", "s3://bucket/part-?.parquet matches nothing"),
    ],
)  # fmt: skip
def test_texts_are_shown_without_secrets(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown

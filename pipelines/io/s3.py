"""An S3 bucket as a store: every write is one PUT, which is complete or has not happened.

The lease and receipts need conditional writes (If-None-Match, If-Match), which Amazon S3 and most stores of its kind have; `prepare` tries
them and refuses a store that does not have them. A read follows every write at once, as S3 promises.

The client tries again, with growing waits, what was throttled, cut off or not answered. Two things it cannot do: tell that a conditional
write was refused because it had succeeded before, unheard (the content tells), and read a body again whose end never came.
"""

import asyncio
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import fsspec.asyn

from pipelines.errors import OutputError
from pipelines.io.outputs import TMP, Versioned, output_error, put

_REFUSED = ("PreconditionFailed", "412")
_IN_CONFLICT = ("ConditionalRequestConflict", "OperationAborted", "409")
_NOT_KNOWN = ("NotImplemented", "501")
_MAX_ATTEMPTS = 5
_FIRST_WAIT_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Store:
    """Objects below `url`. `options` are s3fs's, with the secrets."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def location(self) -> str:
        return self.url

    def prepare(self, folders: tuple[str, ...]) -> None:  # noqa: ARG002 - a bucket has no folders to make
        probe = f"{TMP}/probe-{secrets.token_hex(8)}"
        try:
            version = self.create(probe, b"1")
            is_exact = version is not None and self.create(probe, b"2") is None
            is_exact = is_exact and self.replace(probe, f'"{"0" * 32}"', b"3") is None
            if not is_exact or self.replace(probe, str(version), b"4") is None:
                raise OutputError(self._no_conditions)
        finally:
            with suppress(OutputError):  # what went wrong before says more; `sweep` removes what is left
                self.delete(probe)

    @property
    def _no_conditions(self) -> str:
        return (
            f"the store of {self.url} does not honour conditional writes (If-None-Match, If-Match), which keep two runs "
            "apart; write to a folder or to a store that has them"
        )

    def sweep(self) -> None:
        for name, _ in list(self.sizes(TMP)):
            self.delete(f"{TMP}/{name}")

    def read(self, name: str) -> bytes | None:
        found = self.read_versioned(name)
        return None if found is None else found.content

    def open(self, name: str) -> BinaryIO:
        with _calling("read", self._url_of(name)), tempfile.TemporaryDirectory(prefix="millrace-") as folder:
            path = Path(folder) / "content"
            self._files().get_file(self._url_of(name), str(path))
            return path.open("rb")

    def write(self, name: str, content: bytes) -> None:
        with _calling("write", self._url_of(name)):
            self._files().pipe_file(self._url_of(name), content)

    @contextmanager
    def write_with(self, name: str) -> Iterator[Path]:
        found = self.read_versioned(name)
        with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
            path = Path(folder) / "content"
            yield path
            if put(self, name, found, path.read_bytes()) is None:
                raise OutputError(f"{self._url_of(name)} was written by another process meanwhile; run again")

    def delete(self, name: str) -> None:
        with _calling("remove", self._url_of(name)):
            self._call("delete_object", Key=self._key(name))

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        for found in self._entries(folder):
            yield found["Key"].removeprefix(self._key(folder) + "/"), int(found["Size"])

    def times(self, folder: str) -> dict[str, float]:
        prefix = self._key(folder) + "/"
        return {found["Key"].removeprefix(prefix): found["LastModified"].timestamp() for found in self._entries(folder)}

    def _entries(self, folder: str) -> Iterator[Mapping[str, Any]]:
        more: dict[str, str] = {}
        while True:
            with _calling("list", self._url_of(folder)):
                page = self._call("list_objects_v2", Prefix=self._key(folder) + "/", **more)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read_versioned(self, name: str) -> Versioned | None:
        files = self._files()

        async def get() -> Versioned:
            return await _whole(lambda: files._call_s3("get_object", Bucket=self._bucket, Key=self._key(name)))

        with _calling("read", self._url_of(name)):
            try:
                return cast("Versioned", fsspec.asyn.sync(files.loop, get))
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return None

    def create(self, name: str, content: bytes) -> str | None:
        return self._put(name, content, IfNoneMatch="*")

    def replace(self, name: str, version: str, content: bytes) -> str | None:
        return self._put(name, content, IfMatch=version)

    def _put(self, name: str, content: bytes, **condition: str) -> str | None:
        for attempt in range(_MAX_ATTEMPTS):
            try:
                with _calling("write", self._url_of(name)):
                    return str(self._call("put_object", Key=self._key(name), Body=content, **condition)["ETag"])
            except OutputError as error:
                code = _code(error.__cause__)
                if code in _NOT_KNOWN:
                    raise OutputError(self._no_conditions) from error
                if code in _IN_CONFLICT and attempt + 1 < _MAX_ATTEMPTS:  # another write is under way: perhaps ours
                    time.sleep(_FIRST_WAIT_S * 2**attempt)
                    continue
                if code in (*_REFUSED, *_IN_CONFLICT) or (code == "NoSuchKey" and "IfMatch" in condition):
                    break
                raise
        found = self.read_versioned(name)
        return found.version if found is not None and found.content == content else None

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._files().call_s3(method, Bucket=self._bucket, **arguments)

    def _files(self) -> Any:
        """The s3fs file system, one per process and set of options."""
        return fsspec.filesystem("s3", **self.options)

    def _url_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    @property
    def _bucket(self) -> str:
        return self.url.removeprefix("s3://").split("/", 1)[0]

    def _key(self, name: str) -> str:
        return "/".join([*self.url.removeprefix("s3://").split("/")[1:], name])


def _code(error: BaseException | None) -> str:
    """S3's own code for an error that s3fs has turned into one of Python's."""
    response = getattr(error.__cause__ if error else None, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


async def _whole(ask: Callable[[], Awaitable[Any]]) -> Versioned:
    """Asks for an object until its body comes to its end. That it cannot be had at all, the client knows after trying enough itself."""
    from s3fs.core import S3_RETRYABLE_ERRORS

    for attempt in count():
        found = await ask()
        try:
            async with found["Body"] as body:
                return Versioned(content=await body.read(), version=found["ETag"])
        except S3_RETRYABLE_ERRORS:
            if attempt + 1 == _MAX_ATTEMPTS:
                raise
            await asyncio.sleep(_FIRST_WAIT_S * 2**attempt)
    raise AssertionError("unreachable")


@contextmanager
def _calling(action: str, place: str) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except Exception as error:  # what the client raises has no common base
        raise output_error(action, place, error) from error

"""An S3 bucket as a store: every write is one PUT, which is complete or has not happened.

The lease needs conditional writes (If-None-Match, If-Match), which Amazon S3 and most stores of its kind have; `prepare` tries them
and refuses a store that ignores them. A read follows every write at once, as S3 promises.
"""

import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import fsspec.asyn

from pipelines.errors import OutputError
from pipelines.store import TMP, Versioned, output_error

_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


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
        version = self.create(probe, b"1")
        try:
            is_exact = version is not None and self.create(probe, b"2") is None
            is_exact = is_exact and self.replace(probe, f'"{"0" * 32}"', b"3") is None
            if not is_exact or self.replace(probe, str(version), b"4") is None:
                raise OutputError(
                    f"the store of {self.url} does not honour conditional writes (If-None-Match, If-Match), which keep two runs "
                    "apart; write to a folder or to a store that has them"
                )
        finally:
            self.delete(probe)

    def sweep(self) -> None:
        for name, _ in list(self.sizes(TMP)):
            self.delete(f"{TMP}/{name}")

    def read(self, name: str) -> bytes | None:
        found = self.read_versioned(name)
        return None if found is None else found.content

    def open(self, name: str) -> BinaryIO:
        with _calling("read", self._place(name)):
            files = self._files()
            files.invalidate_cache()
            return cast("BinaryIO", files.open(self._place(name), "rb"))

    def write(self, name: str, content: bytes) -> None:
        with _calling("write", self._place(name)):
            self._files().pipe_file(self._place(name), content)

    @contextmanager
    def write_with(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
            path = Path(folder) / "content"
            yield path
            with _calling("write", self._place(name)):
                self._files().put_file(str(path), self._place(name))

    def delete(self, name: str) -> None:
        with _calling("remove", self._place(name)):
            self._call("delete_object", Key=self._key(name))

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        prefix = self._key(folder) + "/"
        more: dict[str, str] = {}
        while True:
            with _calling("list", self._place(folder)):
                page = self._call("list_objects_v2", Prefix=prefix, **more)
            for found in page.get("Contents", ()):
                yield found["Key"].removeprefix(prefix), int(found["Size"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read_versioned(self, name: str) -> Versioned | None:
        files = self._files()

        async def get() -> Versioned:
            found = await files._call_s3("get_object", Bucket=self._bucket, Key=self._key(name))
            return Versioned(content=await found["Body"].read(), version=found["ETag"])

        with _calling("read", self._place(name)):
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
        with _calling("write", self._place(name)):
            try:
                return str(self._call("put_object", Key=self._key(name), Body=content, **condition)["ETag"])
            except Exception as error:
                if _code(error) in _REFUSED or (_code(error) == "NoSuchKey" and "IfMatch" in condition):
                    return None
                raise

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._files().call_s3(method, Bucket=self._bucket, **arguments)

    def _files(self) -> Any:
        """The s3fs file system, one a process and set of options."""
        return fsspec.filesystem("s3", **self.options)

    def _place(self, name: str) -> str:
        return f"{self.url}/{name}"

    @property
    def _bucket(self) -> str:
        return self.url.removeprefix("s3://").split("/", 1)[0]

    def _key(self, name: str) -> str:
        return "/".join([*self.url.removeprefix("s3://").split("/")[1:], name])


def _code(error: BaseException) -> str:
    """S3's own code for an error that s3fs has turned into one of Python's."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


@contextmanager
def _calling(action: str, place: str) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except Exception as error:  # what the client raises has no common base
        raise output_error(action, place, error) from error

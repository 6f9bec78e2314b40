"""The output folder: files are complete or absent, and of several writers one wins. The same for a folder and for S3."""

import errno
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import OutputError, PlanError
from pipelines.io.local import LocalStore
from pipelines.io.open_output import open_store
from pipelines.io.outputs import Store
from pipelines.job import OutputSpec


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.service)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        made = open_store(OutputSpec(path=str(tmp_path / "out")))
    else:
        made = open_store(
            OutputSpec(path=f"s3://bucket/{tmp_path.name}/out", storage_options=request.getfixturevalue("s3_options"))
        )
    made.prepare(("data", "errors"))
    return made


def test_what_is_written_is_read_whole_and_replaced(store: Store) -> None:
    assert store.read("data/a") is None
    store.write("data/a", b"one")
    store.write("data/a", b"two")
    store.write("top.json", b"")
    assert (store.read("data/a"), store.read("top.json")) == (b"two", b"")
    with store.open("data/a") as file:
        file.seek(1)
        assert file.read() == b"wo"


def test_sizes_are_those_of_one_folder(store: Store) -> None:
    store.write("data/a", b"one")
    store.write("data/b", b"")
    store.write("errors/c", b"xx")
    assert sorted(store.sizes("data")) == [("a", 3), ("b", 0)]
    assert list(store.sizes("nothing")) == []


def test_a_file_is_deleted_if_it_is_there(store: Store) -> None:
    store.write("data/a", b"one")
    store.delete("data/a")
    store.delete("data/a")
    assert store.read("data/a") is None


def test_a_file_written_piece_by_piece_appears_at_the_end(store: Store) -> None:
    with store.write_with("data/a") as path, path.open("wb") as file:
        file.write(b"one ")
        assert store.read("data/a") is None
        file.write(b"two")
    assert store.read("data/a") == b"one two"


def test_a_file_whose_writing_fails_does_not_appear(store: Store) -> None:
    store.write("data/a", b"old")

    def write_half() -> None:
        with store.write_with("data/a") as path:
            path.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert store.read("data/a") == b"old"
    assert list(store.sizes("tmp")) == []


def test_sweeping_clears_unfinished_files(store: Store) -> None:
    store.write("tmp/left", b"x")
    store.write("data/a", b"x")
    store.sweep()
    assert (list(store.sizes("tmp")), list(store.sizes("data"))) == ([], [("a", 1)])


def test_a_file_is_created_once(store: Store) -> None:
    assert store.create("lease", b"one") is not None
    assert store.create("lease", b"two") is None
    assert store.read("lease") == b"one"


def test_only_the_version_that_was_seen_is_replaced(store: Store) -> None:
    first = store.create("lease", b"one")
    assert first is not None
    second = store.replace("lease", first, b"two")
    assert second is not None
    assert store.replace("lease", first, b"late") is None
    assert store.replace("missing", first, b"x") is None
    found = store.read_versioned("lease")
    assert found is not None
    assert (found.content, found.version) == (b"two", second)


def test_of_many_writers_one_wins(store: Store) -> None:
    version = store.create("lease", b"old")
    assert version is not None
    start, wins = threading.Barrier(8), []

    def race(number: int) -> None:
        start.wait()
        if store.replace("lease", version, b"%d" % number):
            wins.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert store.read("lease") == b"%d" % wins[0]


def test_a_store_travels_to_workers(store: Store) -> None:
    store.write("data/a", b"one")
    assert pickle.loads(pickle.dumps(store)).read("data/a") == b"one"


def test_secrets_are_not_shown(s3_options: dict[str, Any]) -> None:
    spec = OutputSpec(path="s3://bucket/out", storage_options={**s3_options, "secret": "hush"})
    assert "hush" not in repr(open_store(spec))


@pytest.mark.parametrize("path", ["gs://bucket/out", "memory://out", "s3://key:secret@bucket/out"])
def test_other_places_are_refused(path: str) -> None:
    with pytest.raises(PlanError, match=r"s3://|storage_options") as caught:
        open_store(OutputSpec(path=path))
    assert "secret" not in str(caught.value)


def test_a_missing_bucket_is_an_output_error(s3_options: dict[str, Any]) -> None:
    store = open_store(OutputSpec(path="s3://no-such-bucket/out", storage_options=s3_options))
    with pytest.raises(OutputError, match="no-such-bucket/out"):
        store.prepare(())


def test_a_store_that_ignores_conditions_is_refused(
    s3_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.io.s3 import S3Store

    put = S3Store._put
    monkeypatch.setattr(S3Store, "_put", lambda self, name, content, **condition: put(self, name, content))
    store = open_store(OutputSpec(path="s3://bucket/out", storage_options=s3_options))
    with pytest.raises(OutputError, match="does not honour conditional writes"):
        store.prepare(())


class FullDisk(LocalStore):
    """A folder in which a step of writing fails."""

    step: str = ""
    number: int = errno.ENOSPC

    def fail(self, step: str) -> None:
        if step == type(self).step:
            raise OSError(type(self).number, os.strerror(type(self).number))

    def _sync(self, path: Path) -> None:
        self.fail("sync file" if path.is_file() else "sync folder")
        super()._sync(path)

    def _rename(self, path: Path, target: Path) -> None:
        self.fail("rename")
        super()._rename(path, target)


@pytest.mark.parametrize("step", ["sync file", "rename", "sync folder"])
def test_a_failing_step_is_an_output_error_and_leaves_nothing_half(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FullDisk.at(str(tmp_path))
    store.prepare(("data",))
    store.write("data/a", b"old")
    monkeypatch.setattr(FullDisk, "step", step)
    with pytest.raises(OutputError, match=r"cannot write .*data/a: No space left on device; make room and run again"):
        store.write("data/a", b"new content")
    assert store.read("data/a") in (b"old", b"new content")
    assert list(store.sizes("tmp")) == []


def test_denied_access_is_an_output_error_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FullDisk.at(str(tmp_path))
    store.prepare(("data",))
    monkeypatch.setattr(FullDisk, "step", "rename")
    monkeypatch.setattr(FullDisk, "number", errno.EACCES)
    with pytest.raises(OutputError, match=r"Permission denied; check the permissions"):
        store.write("data/a", b"x")


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"cannot make the folder .*/file/tmp: Not a directory"):
        open_store(OutputSpec(path=str(tmp_path / "file"))).prepare(())


def test_a_lock_that_is_never_freed_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore.at(str(tmp_path))
    store.prepare(())
    monkeypatch.setattr("pipelines.io.local._LOCK_POLLS", 1)
    with store._locked(), pytest.raises(OutputError, match="another process has held it"):
        store.create("lease", b"x")

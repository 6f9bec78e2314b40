"""What people write for a checkpoint, and the folder they get."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from models.checkpoint import remote as checkpoint_remote
from models.checkpoint import url as checkpoint_url
from models.checkpoint.place import find_checkpoint, is_local
from models.config.model_config import ModelConfig
from models.errors import CheckpointError, ConfigError, ModelError
from models.text.tokenizer import Tokenizer
from models.weights.weights import Checkpoint
from tests.conftest import CheckpointMaker

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Uploader = Callable[..., str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloaded checkpoints, in a home of the test's own."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home / ".cache/millrace/checkpoints"


@pytest.fixture
def upload(tmp_path: Path) -> Iterator[Uploader]:
    """A function (folder, name) that copies a folder into memory:// and returns its URL."""
    memory = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}"

    def put(folder: Path, name: str = "model") -> str:
        for file in folder.rglob("*"):
            if file.is_file():
                memory.pipe_file(f"{root}/{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return f"memory:/{root}/{name}"

    yield put
    memory.rm(root, recursive=True)


@pytest.fixture
def model(tiny_checkpoint: CheckpointMaker) -> Path:
    return tiny_checkpoint()


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# Local folders.


def test_a_folder_is_itself(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_checkpoint(model)
    assert (found.folder, found.version) == (model, None)
    assert find_checkpoint(f"file://{model}").folder == model
    monkeypatch.setenv("HOME", str(model.parent))
    assert find_checkpoint(f"~/{model.name}").folder == model


def test_an_existing_folder_is_never_taken_for_a_hub_id(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model, tmp_path / "Qwen/Qwen3-4B")
    monkeypatch.chdir(tmp_path)
    assert is_local("Qwen/Qwen3-4B")
    assert ModelConfig.from_pretrained("Qwen/Qwen3-4B").model_type == "qwen3"


@pytest.mark.parametrize("path", ["./a/b", "/a/b", "~/a", "../a/b", "a", "a/b/c", "a/", "/a", "a\\b/c d"])
def test_what_looks_like_a_path_is_never_a_hub_id(path: str) -> None:
    assert is_local(path)
    assert find_checkpoint(path).version is None
    with pytest.raises(CheckpointError, match="is not a folder"):
        Checkpoint.open(path)
    with pytest.raises(ConfigError, match="is not a folder"):
        ModelConfig.from_pretrained(path)


@pytest.mark.parametrize("path", ["s3://b/m", "memory://m", "hf://a/b", "Qwen/Qwen3-4B", "a/b@main", "a/b@refs/pr/1"])
def test_urls_and_hub_ids_are_not_local(path: str) -> None:
    assert not is_local(path)


# URLs.


def test_only_the_files_that_are_needed_are_brought(model: Path, tmp_path: Path, upload: Uploader) -> None:
    folder = tmp_path / "source"
    shutil.copytree(model, folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "README.md").write_text("hello")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool_use.jinja").write_text("tools")
    (folder / "checkpoint-500").mkdir()
    (folder / "checkpoint-500/model.safetensors").write_bytes(b"old")
    (folder / "consolidated.safetensors").write_bytes(b"another")
    url = upload(folder)
    description = find_checkpoint(url, parts="description")
    assert names_in(description.folder) == names_in(model) - {"model.safetensors"} | {
        ".files.json",
        "additional_chat_templates/tool_use.jinja",
    }
    whole = find_checkpoint(url)
    assert whole.folder == description.folder
    assert names_in(whole.folder) - names_in(description.folder) == set()
    assert (whole.folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert not (whole.folder / "consolidated.safetensors").exists()
    assert whole.version == description.version


def test_every_entry_point_takes_a_url(model: Path, upload: Uploader) -> None:
    from models import Engine, SamplingParams, Scorer
    from models.loading.load import load_model

    url = upload(model)
    assert ModelConfig.from_pretrained(url) == ModelConfig.from_pretrained(model)
    assert Tokenizer.from_pretrained(url).encode("hello") == Tokenizer.from_pretrained(model).encode("hello")
    assert Checkpoint.open(url).tensors.keys() == Checkpoint.open(model).tensors.keys()
    assert load_model(url, dtype="float32").head == "causal"
    with Engine.from_pretrained(url, dtype="float32") as engine:
        assert engine.generate(["hello"], SamplingParams(max_tokens=2))[0].token_ids
    scores = [Scorer.from_pretrained(place, dtype="float32").score([[1, 2]])[0] for place in (url, model)]
    assert (scores[0] == scores[1]).all()


def test_shards_are_brought_as_the_index_names_them(
    tmp_path: Path, upload: Uploader, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(checkpoint_remote, "PIECE_BYTES", 1000)
    folder = tmp_path / "sharded"
    shutil.copytree(model, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    found = find_checkpoint(upload(folder))
    assert {name: (found.folder / name).read_bytes() for name in names_in(folder)} == {
        name: (folder / name).read_bytes() for name in names_in(folder)
    }


def test_what_is_here_is_not_brought_again(model: Path, upload: Uploader, monkeypatch: pytest.MonkeyPatch) -> None:
    url = upload(model)
    first = find_checkpoint(url)
    monkeypatch.setattr(checkpoint_url, "_download_one", lambda *_: pytest.fail("downloaded again"))
    assert find_checkpoint(url) == first


def test_a_version_that_is_here_is_found_without_asking(
    model: Path, upload: Uploader, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = upload(model)
    first = find_checkpoint(url)
    monkeypatch.setattr(checkpoint_remote.Remote, "_open", lambda *_: pytest.fail("asked"))
    assert find_checkpoint(url, version=first.version) == first


def test_a_remote_that_was_written_again_is_another_version(model: Path, tmp_path: Path, upload: Uploader) -> None:
    url = upload(model)
    first = find_checkpoint(url)
    changed = tmp_path / "changed"
    changed.mkdir()
    fields = json.loads((model / "config.json").read_text()) | {"bos_token_id": 3}
    (changed / "config.json").write_text(json.dumps(fields))
    upload(changed)
    second = find_checkpoint(url)
    assert second.version != first.version
    assert ModelConfig.from_pretrained(url).bos_token_id == 3
    assert find_checkpoint(url, version=first.version) == first
    shutil.rmtree(first.folder)
    with pytest.raises(CheckpointError, match="its files were written again"):
        find_checkpoint(url, version=first.version)


def test_a_file_that_changes_under_the_download_is_not_used(
    model: Path, upload: Uploader, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = upload(model)
    key = url.removeprefix("memory:/") + "/tokenizer.json"
    real = checkpoint_remote.Remote.read

    def read_and_rewrite(remote: Any, file: Any, start: int) -> bytes:
        piece = real(remote, file, start)
        if file.name == "tokenizer.json":
            fsspec.filesystem("memory").pipe_file(key, piece[::-1])
        return piece

    monkeypatch.setattr(checkpoint_remote.Remote, "read", read_and_rewrite)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json was written while it was being downloaded"):
        find_checkpoint(url)
    monkeypatch.undo()


def test_a_reading_that_fails_is_tried_again(
    model: Path, upload: Uploader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url, memory = upload(model), type(fsspec.filesystem("memory"))
    real, failures = memory.cat_file, [ConnectionError("reset"), TimeoutError("slow")]

    def cat_file(*args: Any, **kwargs: Any) -> bytes:
        if failures:
            raise failures.pop()
        return bytes(real(*args, **kwargs))

    monkeypatch.setattr(memory, "cat_file", cat_file)
    monkeypatch.setattr(checkpoint_remote, "_FIRST_WAIT_S", 0.0)
    assert Checkpoint.open(url).tensors
    assert "ConnectionError" in caplog.text


def test_a_reading_that_always_fails_is_told(model: Path, upload: Uploader, monkeypatch: pytest.MonkeyPatch) -> None:
    def cat_file(*args: Any, **kwargs: Any) -> bytes:
        raise ConnectionError("reset by peer")

    url = upload(model)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", cat_file)
    monkeypatch.setattr(checkpoint_remote, "_FIRST_WAIT_S", 0.0)
    with pytest.raises(CheckpointError, match=r"memory://.* cannot be read \(ConnectionError: reset by peer\)"):
        find_checkpoint(url)


def test_a_full_disk_is_told_before_anything_is_written(
    model: Path, upload: Uploader, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(CheckpointError, match="make room there, or mount a larger disk at"):
        find_checkpoint(upload(model))


def test_a_cache_that_cannot_be_written_is_told(model: Path, upload: Uploader, cache: Path) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("in the way")
    with pytest.raises(CheckpointError, match="checkpoints from URLs are kept in"):
        find_checkpoint(upload(model))


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "there is nothing at memory://"),
        ({"x.txt": ""}, "has no config.json"),
        ({"a.gguf": ""}, r"holds GGUF files \(a.gguf\)"),
        ({"adapter_config.json": "", "adapter_model.safetensors": ""}, "holds an adapter"),
        ({"config.json": "{}", "pytorch_model.bin": ""}, r"only pickled weights \(pytorch_model.bin\)"),
        ({"config.json": "{}", "a.gguf": ""}, "holds GGUF files"),
        ({"config.json": "{}", "other.safetensors": ""}, "rename a single file to"),
        (
            {"config.json": "{}", "model.safetensors": "", "adapter_config.json": "", "adapter_model.safetensors": ""},
            r"an adapter \(adapter_config.json, adapter_model.safetensors\) beside a model's weights",
        ),
        ({"config.json": "{}", "model.safetensors": "", "quantize_config.json": ""}, "quantized with GPTQ"),
        (
            {"config.json": "{}", "model.safetensors.index.json": '{"weight_map": {"a": "1.safetensors"}}'},
            "names shards that are not there: 1.safetensors",
        ),
        ({"config.json": "{}", "model.safetensors.index.json": "{"}, "cannot be read as a safetensors index"),
    ],
)
def test_a_url_that_holds_something_else_is_told_before_weights_are_brought(
    tmp_path: Path, upload: Uploader, files: dict[str, str], problem: str
) -> None:
    (tmp_path / "odd").mkdir()
    for name, text in files.items():
        (tmp_path / "odd" / name).write_text(text)
    url = upload(tmp_path / "odd", "odd")
    if not files:
        fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/elsewhere", b"")
    with pytest.raises(CheckpointError, match=problem):
        find_checkpoint(url, parts="description").check_weights()
    with pytest.raises(CheckpointError, match=problem):
        find_checkpoint(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("gs://bucket/m", r"cannot be opened: .*gcsfs.* \(pip install gcsfs\)"),
        ("abfs://c@a/m", r"\(pip install adlfs\)"),
        ("nonsense://m", "Protocol not known: nonsense"),
        ("sftp://me:hush@host/m", "has a password, a signature or a token in it"),
        ("s3://[", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_opened_says_why(url: str, problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem) as caught:
        find_checkpoint(url)
    assert "hush" not in str(caught.value)


# S3, several processes, and one that is killed.


def put_to_s3(folder: Path, options: dict[str, Any], name: str) -> str:
    import s3fs

    url = f"s3://bucket/{name}"
    system = s3fs.S3FileSystem(**options)
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"bucket/{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


def test_a_checkpoint_in_s3_is_loaded(model: Path, s3_options: dict[str, Any], tmp_path: Path) -> None:
    url = put_to_s3(model, s3_options, f"places/{tmp_path.name}/model")
    found = find_checkpoint(url, storage_options=s3_options)
    assert (found.folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert set(found.weights) == {"model.safetensors"}
    assert Checkpoint.open(found.folder).tensors.keys() == Checkpoint.open(model).tensors.keys()
    with pytest.raises(CheckpointError, match="there is nothing at s3://bucket/nowhere"):
        find_checkpoint("s3://bucket/nowhere", storage_options=s3_options)


FETCH = """
import json, sys, time
from models.checkpoint import remote as checkpoint_remote, url as checkpoint_url
from models.checkpoint.place import find_checkpoint
url, options, pace = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
checkpoint_remote.PIECE_BYTES = 1000
copy = checkpoint_url._copy_piece
def slowly(remote, file, out, start):
    copy(remote, file, out, start)
    if file.name.endswith(".safetensors"):
        time.sleep(pace)
checkpoint_url._copy_piece = slowly
one = checkpoint_url._download_one
def told(remote, file, target):
    print("downloading", file.name, flush=True)
    one(remote, file, target)
checkpoint_url._download_one = told
print("found", find_checkpoint(url, storage_options=options).folder, flush=True)
"""


def fetching(url: str, options: dict[str, Any], pace: float = 0.0) -> "subprocess.Popen[str]":
    """A process that brings a checkpoint here, `pace` seconds for each 1,000 bytes of weights."""
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, url, json.dumps(options), str(pace)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},  # noqa: PTH109
    )


@pytest.mark.slow
def test_several_processes_bring_a_checkpoint_once(model: Path, s3_options: dict[str, Any], tmp_path: Path) -> None:
    url = put_to_s3(model, s3_options, f"places/{tmp_path.name}/shared")
    processes = [fetching(url, s3_options) for _ in range(4)]
    lines = [line for process in processes for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in processes] == [0] * 4
    found = [line for line in lines if line.startswith("found")]
    assert len(found) == 4
    assert len(set(found)) == 1
    downloaded = sorted(line.removeprefix("downloading ") for line in lines if line.startswith("downloading"))
    assert downloaded == sorted(names_in(model) - {"README.md"})
    folder = Path(found[0].removeprefix("found "))
    assert all((folder / name).read_bytes() == (model / name).read_bytes() for name in downloaded)
    assert not [name for name in names_in(folder) if name.endswith(".part")]


def test_a_killed_download_leaves_nothing_that_is_used(
    model: Path, s3_options: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    url = put_to_s3(model, s3_options, f"places/{tmp_path.name}/killed")
    with fetching(url, s3_options, pace=5.0) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "downloading model.safetensors\n":
                break
        while not list(cache.rglob(".model.safetensors.part")):
            assert process.poll() is None
        process.kill()
        process.wait()
    assert list(cache.rglob(".model.safetensors.part"))
    assert not list(cache.rglob("model.safetensors"))
    version = find_checkpoint(url, parts="description", storage_options=s3_options).version
    whole = find_checkpoint(url, storage_options=s3_options, version=version)
    assert (whole.folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert not list(cache.rglob("*.part"))


# The hub.


@pytest.fixture
def hub(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one repository, offline, laid out as huggingface_hub does."""
    import huggingface_hub.constants

    root = tmp_path / "hub"
    repository = root / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    (repository / "blobs").mkdir()
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(model.iterdir())):
        shutil.copy(file, repository / f"blobs/{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return root


@pytest.mark.parametrize("given", ["org/tiny", "org/tiny@main", f"org/tiny@{COMMIT}"])
def test_a_hub_id_is_found_in_the_cache(hub: Path, model: Path, given: str) -> None:
    found = find_checkpoint(given)
    assert found.folder == hub / "models--org--tiny/snapshots" / COMMIT
    assert found.version == COMMIT
    found.check_weights()
    assert ModelConfig.from_pretrained(given) == ModelConfig.from_pretrained(model)
    assert Checkpoint.open(given).tensors.keys() == Checkpoint.open(model).tensors.keys()


def test_a_pinned_hub_id_is_never_a_folder(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org/tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("org/tiny").folder == Path("org/tiny")
    assert find_checkpoint("org/tiny", version=COMMIT).version == COMMIT


def test_a_folder_of_the_hubs_cache_is_its_main_snapshot(hub: Path) -> None:
    repository = hub / "models--org--tiny"
    assert find_checkpoint(repository).folder == repository / "snapshots" / COMMIT
    (repository / "refs/main").unlink()
    assert find_checkpoint(repository).folder == repository / "snapshots" / COMMIT
    (repository / "snapshots/other").mkdir()
    with pytest.raises(CheckpointError, match=f"its snapshots are: {COMMIT}, other; give the path of one"):
        find_checkpoint(repository)


@pytest.mark.parametrize("given", ["org/other", "org/tiny@other"])
def test_an_unknown_hub_id_says_both_things_that_were_tried(hub: Path, given: str) -> None:
    with pytest.raises(
        CheckpointError, match=rf"{given} is no folder here \(/.*{given}\), and as an id of the Hugging Face hub"
    ):
        find_checkpoint(given)


def test_a_hub_snapshot_without_weights_is_told(hub: Path) -> None:
    (hub / "models--org--tiny/snapshots" / COMMIT / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="org/tiny has neither"):
        find_checkpoint("org/tiny")


def test_a_hub_repository_of_another_kind_is_told_by_its_files(hub: Path) -> None:
    snapshot = hub / "models--org--tiny/snapshots" / COMMIT
    for file in snapshot.iterdir():
        file.unlink()
    (snapshot / "tiny-q4.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"org/tiny holds GGUF files \(tiny-q4\.gguf\)"):
        find_checkpoint("org/tiny", parts="description")


def test_without_the_hubs_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"a/b is no folder here .* pip install 'millrace\[hub\]'"):
        find_checkpoint("a/b")


def test_offline_mode_of_the_environment_is_kept(hub: Path) -> None:
    """In a process of its own, with the hub's own variables."""
    script = "from models.checkpoint.place import find_checkpoint; print(find_checkpoint('org/tiny').folder)"
    settings = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub), "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **settings}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(hub / "models--org--tiny/snapshots" / COMMIT)


# Folders that hold something else.


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"adapter_config.json": "{}", "adapter_model.safetensors": ""}, "holds an adapter.*merge_and_unload"),
        ({"model-q4.gguf": ""}, r"holds GGUF files \(model-q4\.gguf\).*safetensors checkpoint"),
        ({"pytorch_model.bin": ""}, r"has no config\.json"),
        ({"config.json": '{"model_type": '}, r"config\.json is not valid JSON \(.*\); download it again"),
        ({"config.json": ""}, r"config\.json is not valid JSON"),
        ({"config.json": "[" * 100_000}, r"config\.json is not valid JSON"),
        ({"config.json": "[]"}, r"config\.json holds list"),
        ({"config.json": b"\xff\xfe\x00".decode("latin-1")}, r"config\.json is not valid JSON"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_told(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=problem):
        ModelConfig.from_pretrained(folder)

"""What the Dockerfile promises, read from its text: it is not built here."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from jobs.serve.environment import SERVE_ENVIRONMENT
from tests.k8s.kustomize import FOLDERS, ROOT, build
from tests.k8s.test_policies import containers

PUBLIC = {"download.pytorch.org"}


class Instruction(NamedTuple):
    """One instruction of a Dockerfile, its lines joined."""

    word: str
    rest: str


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line]


def arguments(instructions: list[Instruction]) -> dict[str, str]:
    given = (each.rest.partition("=") for each in instructions if each.word == "ARG")
    return {name: default for name, _, default in given if default}


def test_the_last_stage_is_not_the_one_that_builds(instructions: list[Instruction]) -> None:
    stages = [each.rest for each in instructions if each.word == "FROM"]
    assert stages == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]


def test_it_runs_as_a_numbered_user_that_the_manifests_know(instructions: list[Instruction]) -> None:
    after_last_stage = instructions[max(i for i, each in enumerate(instructions) if each.word == "FROM") :]
    (user,) = (each.rest for each in after_last_stage if each.word == "USER")
    assert user == "1000:1000"


def test_no_private_host_is_written_down(instructions: list[Instruction]) -> None:
    text = "\n".join(each.rest for each in instructions)
    assert set(re.findall(r"https?://([^/\s\"]+)", text)) <= PUBLIC
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", arguments(instructions)["BASE_IMAGE"])


def test_torch_is_the_version_of_the_project(instructions: list[Instruction]) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"torch=={arguments(instructions)['TORCH_VERSION']}" in dependencies


@pytest.mark.parametrize(
    ("variant", "installs"),
    [
        ("cpu", ["install", "torch==2.13.0", "--index-url", "https://download.pytorch.org/whl/cpu"]),
        ("cuda", ["install", "torch==2.13.0"]),
    ],
)
def test_each_variant_installs_its_build_of_torch(
    instructions: list[Instruction], tmp_path: Path, variant: str, installs: list[str]
) -> None:
    done = run_step(instructions, "torch==", tmp_path, {"VARIANT": variant})
    assert done.stdout.split() == installs


def test_another_variant_is_refused(instructions: list[Instruction], tmp_path: Path) -> None:
    done = run_step(instructions, "torch==", tmp_path, {"VARIANT": "rocm"})
    assert done.returncode == 1
    assert "must be cpu or cuda" in done.stderr


@pytest.mark.parametrize(
    ("given", "installs"),
    [
        ({}, ["install", ".[hub]", "s3fs>=2026.9.0"]),
        ({"EXTRAS": "", "STORAGE": "gcsfs adlfs"}, ["install", ".", "gcsfs", "adlfs"]),
    ],
    ids=["defaults", "given"],
)
def test_the_project_is_installed_with_its_extras_and_stores(
    instructions: list[Instruction], tmp_path: Path, given: dict[str, str], installs: list[str]
) -> None:
    assert run_step(instructions, "EXTRAS", tmp_path, given).stdout.split() == installs


@pytest.mark.parametrize(
    ("given", "installs"),
    [
        ({}, []),
        ({"FLASH_ATTN": "2.8.3"}, ["install", ".[gpu]", "install", "--no-build-isolation", "flash-attn==2.8.3"]),
    ],
    ids=["by default", "given"],
)
def test_flash_attention_is_built_only_where_it_is_asked_for(
    instructions: list[Instruction], tmp_path: Path, given: dict[str, str], installs: list[str]
) -> None:
    done = run_step(instructions, "flash-attn==", tmp_path, {"FLASH_ATTN": "", **given})
    assert (done.returncode, done.stdout.split()) == (0, installs)


def test_no_extra_asks_for_a_package_that_has_no_wheels() -> None:
    """flash-attn is published as source alone, and its build asks for the installed torch, which pip hides from it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {re.split(r"[^A-Za-z0-9_-]", requirement)[0] for extra in extras.values() for requirement in extra}
    assert not asked & {"flash-attn", "flash_attn"}


def test_what_the_build_copies_is_let_through(instructions: list[Instruction]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert let_through == {"actors", "jobs", "models", "pipelines", "pyproject.toml", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in let_through)


def test_the_tags_it_tells_of_are_those_of_the_manifests() -> None:
    told = set(re.findall(r"--tag (\S+)", (ROOT / "Dockerfile").read_text()))
    assert told == {container["image"] for folder in FOLDERS for container in containers(build(folder))}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert told == {f"millrace:{version}", f"millrace:{version}-cuda"}


def test_serve_has_the_environment_that_a_service_starts_it_with(instructions: list[Instruction]) -> None:
    (environment,) = (each.rest for each in instructions if each.word == "ENV" and "RAY_SERVE" in each.rest)
    given = dict(part.split("=", 1) for part in environment.split())
    assert {name: value for name, value in given.items() if name.startswith("RAY_SERVE")} == SERVE_ENVIRONMENT


def run_step(
    instructions: list[Instruction], marker: str, folder: Path, given: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs the RUN instruction that holds `marker` with a `pip` that prints what it was asked."""
    (step,) = (each.rest for each in instructions if each.word == "RUN" and marker in each.rest)
    pip = folder / "pip"
    pip.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    pip.chmod(0o755)
    env = {**arguments(instructions), **given, "PATH": f"{folder}:/usr/bin:/bin"}
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", step], env=env, capture_output=True, text=True, check=False
    )

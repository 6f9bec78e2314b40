"""A checkpoint's chat template costs the request that it renders, and nothing else."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from actors.online.local import LocalModel
from tests.helpers.actors.hostile import FRIENDLY, chat_under
from tests.helpers.models.jinja_grammar import templates
from tests.helpers.models.template_bombs import BOMBS

SLACK_S = 20.0
"""On a machine that others use: a template is ended after 3 s, and answered in under 6 s where two cores are free."""

SOME = ("round", "printing a list of long texts", "tests are not charged")


def check(template: str, checkpoint: Path, model: LocalModel, folder: Path) -> None:
    found = chat_under(template, checkpoint, model, folder)
    print(f"{found.status} {found.seconds:.2f} s, /health {found.longest_health_s:.3f} s: {found.message[:150]}")  # noqa: T201
    assert found.status in {200, 400}, found.message
    assert found.seconds < SLACK_S
    assert found.statuses_beside == {200}


def test_a_template_that_means_well_is_served(causal_path: Path, causal: LocalModel, tmp_path: Path) -> None:
    found = chat_under(FRIENDLY, causal_path, causal, tmp_path)
    assert (found.status, found.statuses_beside) == (200, {200})


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_a_template_that_would_take_all_costs_its_own_request(
    name: str, causal_path: Path, causal: LocalModel, tmp_path: Path
) -> None:
    check(BOMBS[name], causal_path, causal, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("name", BOMBS)
def test_every_known_template_costs_its_own_request(
    name: str, causal_path: Path, causal: LocalModel, tmp_path: Path
) -> None:
    check(BOMBS[name], causal_path, causal, tmp_path)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(4))
def test_any_template_costs_its_own_request(
    part: int, causal_path: Path, causal: LocalModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @seed(part)
    @settings(
        max_examples=50, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(template=templates())
    def each(template: str) -> None:
        check(template, causal_path, causal, tmp_path_factory.mktemp("theirs"))

    each()

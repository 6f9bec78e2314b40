"""Attacks on a real `millrace serve` with keys, a neighbour who asks another model, and a job beside it (make faults).

Each attack is one test. The bars are the service's promises: no request stalls `/health` for over half a second or takes over 200 MB
beyond its own size, a stranger's checkpoint costs its own request only, and nothing computes on for somebody who has left. Time is
tried three times, for a busy machine can fail it once; memory is not, for what was taken once is there to be taken again.

The table of all costs is in the log's lines and in the file that the last of them names.
"""

import logging
from collections.abc import Iterator

import pytest

from tests.faults.hostile import client
from tests.faults.hostile.attacks import ATTACKED, Attack, Prepared, attacks
from tests.faults.hostile.site import TEXT, Site, open_site
from tests.faults.hostile.table import row, table
from tests.faults.hostile.watch import Cost, measured

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

MAX_BYTES = 200_000_000
MAX_NEIGHBOUR_S = 6.0
MAX_SETTLED_S = 10.0
MAX_PAUSE_S = 60.0
TRIES = 3


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request of a neighbour hides the others
    with open_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Attack, Cost]]:
    """What was measured; written down at the end."""
    found: dict[Attack, Cost] = {}
    yield found
    path = tmp_path_factory.mktemp("costs") / "costs.md"
    path.write_text(table(found))
    logger.info("the table of costs is %s", path)


@pytest.mark.parametrize("attack", list(attacks()), ids=lambda attack: attack.name)
def test_an_attack_costs_nobody_else_anything(site: Site, attack: Attack, costs: dict[Attack, Cost]) -> None:
    prepared = attack.prepare()
    for _ in range(TRIES):
        cost = cost_of(site, prepared)
        costs[attack] = cost
        logger.info("%s", row(attack, cost))
        assert cost.memory_bytes - prepared.num_bytes <= MAX_BYTES, cost
        assert not cost.refusals, cost
        faults = slow(attack, cost)
        if not faults:
            break
    else:
        pytest.fail(f"{', '.join(faults)}: {cost}")
    assert cost.outcome.startswith("500 internal_error") if attack.crashes else not is_failure(cost.outcome), cost
    for never in (client.NO_ANSWER, client.OTHER_SHAPE, client.TOO_LONG):
        assert never not in cost.outcome, cost


def is_failure(outcome: str) -> bool:
    """Whether it is a status from 500 on."""
    return outcome.partition(" ")[0].isdigit() and int(outcome.partition(" ")[0]) >= 500


def cost_of(site: Site, prepared: Prepared) -> Cost:
    service = site.service()
    return measured(
        lambda: prepared.act(service), service, noise_url=site.noise_url, neighbour=TEXT, idle_kinds=set(ATTACKED)
    )


def slow(attack: Attack, cost: Cost) -> list[str]:
    """The bars in seconds that were missed."""
    bars = {
        "/health stalls": (cost.own_stall_s, attack.max_stall_s),
        "a neighbour waits": (cost.neighbour_s, MAX_NEIGHBOUR_S),
        "it computes on": (cost.settled_s, MAX_SETTLED_S),
        "its answer is late": (cost.seconds, attack.max_s or cost.seconds),
    }
    return [name for name, (found, most) in bars.items() if found > most]


def test_the_job_beside_all_of_them_has_lost_nothing(site: Site) -> None:
    """The last test of the module: jobs went on through all attacks."""
    site.service()
    pause = site.finish()
    logger.info("the job's longest pause between two units was %.1f s", pause)
    assert pause < MAX_PAUSE_S

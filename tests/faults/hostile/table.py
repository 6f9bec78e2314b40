"""The costs of attacks as a table in Markdown."""

from collections.abc import Mapping

from tests.faults.hostile.attacks import Attack
from tests.faults.hostile.watch import Cost

HEAD = (
    "| attack | by | what came of it | seconds | longest stall of `/health`, s | of the machine's, s | memory, MB "
    "| another model's longest answer, s | computes on, s |\n|---|---|---|---|---|---|---|---|---|"
)


def row(attack: Attack, cost: Cost) -> str:
    """One line of the table."""
    cells = (
        attack.name,
        attack.who,
        cost.outcome,
        f"{cost.seconds:.1f}",
        f"{cost.stall_s:.2f}",
        f"{cost.noise_s:.2f}",
        memory(cost),
        f"{cost.neighbour_s:.1f}",
        f"{cost.settled_s:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def memory(cost: Cost) -> str:
    """Megabytes, and those of the kind of process that takes most of them."""
    kinds = {kind: size for kind, size in cost.memory.items() if kind != "all"}
    most = max(kinds, key=lambda kind: kinds[kind])
    return f"{cost.memory_bytes / 1e6:.0f} (`{most}` {kinds[most] / 1e6:.0f})"


def table(costs: Mapping[Attack, Cost]) -> str:
    """All lines."""
    return "\n".join([HEAD, *(row(attack, cost) for attack, cost in costs.items())]) + "\n"

"""How a run's engines fit on a cluster, and which cluster that is."""

import pytest

from pipelines.cluster.connect import ASKING_CPUS, engine_threads, local_cpus, packing_on, room_on, rooms_on
from pipelines.errors import ClusterError
from pipelines.job import EngineSpec


@pytest.mark.parametrize(
    ("engine", "cores", "cpus"),
    [
        (EngineSpec(), 2, 3),
        (EngineSpec(), 16, 16),
        (EngineSpec(replicas=4), 2, 6),
        (EngineSpec(replicas=2, num_cpus=4), 8, 10),
        (EngineSpec(num_cpus=0.5), 2, 3),
    ],
)
def test_a_local_cluster_keeps_two_cpus_from_the_engines(engine: EngineSpec, cores: int, cpus: int) -> None:
    assert local_cpus([engine], cores) == cpus


@pytest.mark.parametrize(("num_cpus", "threads"), [(None, 1), (0.5, 1), (1, 1), (3, 3)])
def test_an_engine_computes_with_the_cpus_it_reserves(num_cpus: float | None, threads: int) -> None:
    assert engine_threads(EngineSpec(num_cpus=num_cpus)) == threads


def test_every_engine_gets_a_gpu_where_there_are_any() -> None:
    assert room_on(EngineSpec(), [{"CPU": 8}]).engine_gpus == 0
    assert room_on(EngineSpec(replicas=2), [{"CPU": 8, "GPU": 2}]).engine_gpus == 1


def test_a_cluster_that_engines_would_fill_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        ClusterError, match=r"4 engines of 1 CPUs take 4 of the cluster's 4 CPUs.* give the cluster 5 CPUs"
    ):
        room_on(EngineSpec(replicas=4), [{"CPU": 4}])


def test_a_cluster_with_one_cpu_left_is_enough() -> None:
    assert room_on(EngineSpec(replicas=3), [{"CPU": 4}]).replicas == 3


def test_too_few_gpus_are_refused_with_the_numbers() -> None:
    with pytest.raises(ClusterError, match="2 engines need a GPU each, and the cluster has 1"):
        room_on(EngineSpec(replicas=2), [{"CPU": 8, "GPU": 1}])


@pytest.mark.parametrize("spare_cpus", [1, 2, 8])
@pytest.mark.parametrize("cpus", [0.4, 0.5, 0.8, 0.9, 1, 2])
def test_a_reading_and_a_committing_task_fit_beside_the_engines(cpus: float, spare_cpus: float) -> None:
    room = room_on(EngineSpec(num_cpus=cpus), [{"CPU": cpus + spare_cpus}])
    assert room.read_cpus != ASKING_CPUS, "Ray Data would run reading and the engine stage in one process"
    assert room.read_cpus + ASKING_CPUS + room.commit_cpus <= spare_cpus


def test_they_fit_beside_the_most_engines_that_there_may_be() -> None:
    room = room_on(EngineSpec(num_cpus=1, replicas=1, max_replicas=4), [{"CPU": 5}])
    assert room.max_replicas == 4
    assert room.read_cpus + ASKING_CPUS + room.commit_cpus <= 1


@pytest.mark.parametrize(
    ("nodes", "packing"),
    [
        ([{"CPU": 8}], "STRICT_PACK"),
        ([{"CPU": 2}, {"CPU": 4}], "STRICT_PACK"),
        ([{"CPU": 2}, {"CPU": 2}, {"CPU": 2}], "PACK"),
        ([{"CPU": 8, "GPU": 4}], "STRICT_PACK"),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2}], "PACK"),
    ],
)
def test_a_replica_is_on_one_node_unless_it_is_larger_than_any(nodes: list[dict[str, float]], packing: str) -> None:
    engine = EngineSpec(tensor_parallel_size=4)
    assert room_on(engine, nodes).packing == packing_on(engine, nodes) == packing


@pytest.mark.parametrize(
    ("engine", "nodes", "said"),
    [
        (EngineSpec(tensor_parallel_size=4), [{"CPU": 4}], "1 engines of 4 shards of 1 CPUs take 4 of the cluster's 4"),
        (
            EngineSpec(num_cpus=3),
            [{"CPU": 2}, {"CPU": 2}],
            "do not fit on the cluster's 2 nodes, which have room for 0",
        ),
        (
            EngineSpec(tensor_parallel_size=2, replicas=2),
            [{"CPU": 3}, {"CPU": 1}, {"CPU": 1}],
            "2 engines of 2 shards of 1 CPUs do not fit .* room for 1",
        ),
        (
            EngineSpec(tensor_parallel_size=2, replicas=2),
            [{"CPU": 9, "GPU": 3}],
            "the 2 shards of each of 2 engines need a GPU each, and the cluster has 3",
        ),
    ],
)
def test_what_the_nodes_have_no_room_for_is_refused(
    engine: EngineSpec, nodes: list[dict[str, float]], said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        room_on(engine, nodes)


def test_a_local_cluster_has_room_for_every_shard() -> None:
    assert local_cpus([EngineSpec(replicas=1, max_replicas=3, tensor_parallel_size=4, num_cpus=2)], 2) == 26


CPU1 = EngineSpec(num_cpus=1)


def test_a_local_cluster_has_room_for_the_engines_of_every_step() -> None:
    """Two cores are enough for two models, whose engines take turns on them."""
    assert local_cpus([CPU1, EngineSpec(num_cpus=1, replicas=2)], 2) == 5
    rooms = rooms_on([CPU1, CPU1], [{"CPU": float(local_cpus([CPU1, CPU1], 2))}])
    assert [room.replicas for room in rooms] == [1, 1]
    assert rooms[-1].free_cpus == 2


def test_steps_share_what_is_left_of_a_cluster() -> None:
    """Each has its fewest engines; the first takes what more there is, but for the CPU that reads and commits."""
    growing = EngineSpec(num_cpus=1, replicas=1, max_replicas=4)
    rooms = rooms_on([growing, growing], [{"CPU": 5}])
    assert [(room.replicas, room.max_replicas) for room in rooms] == [(1, 3), (1, 1)]
    assert rooms[-1].free_cpus == 1
    assert [room.max_replicas for room in rooms_on([growing, growing], [{"CPU": 64}])] == [4, 4]


def test_one_step_has_the_room_that_a_job_has() -> None:
    nodes = [{"CPU": 3}, {"CPU": 5, "GPU": 2}]
    engine = EngineSpec(num_cpus=1, max_replicas=3)
    assert rooms_on([engine], nodes) == (room_on(engine, nodes),)


@pytest.mark.parametrize(
    ("engines", "nodes", "said"),
    [
        (
            [CPU1, CPU1],
            [{"CPU": 2}],
            r"cascade\[0\], beside the engines of the other steps: 1 engines of 1 CPUs take 1",
        ),
        ([CPU1, CPU1], [{"CPU": 8, "GPU": 1}], "a GPU for each of 2 shards, and the cluster has 1"),
        ([CPU1, EngineSpec(num_cpus=4)], [{"CPU": 3}, {"CPU": 3}], r"cascade\[1\], .* do not fit"),
        ([CPU1, EngineSpec(num_cpus=1, replicas=3)], [{"CPU": 9, "GPU": 3}], "a GPU for each of 4 shards"),
    ],
)
def test_steps_that_do_not_fit_beside_one_another_are_refused(
    engines: list[EngineSpec], nodes: list[dict[str, float]], said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        rooms_on(engines, nodes)


def test_every_engine_of_every_step_gets_a_gpu() -> None:
    rooms = rooms_on([CPU1, EngineSpec(num_cpus=1, replicas=2)], [{"CPU": 8, "GPU": 3}])
    assert [room.engine_gpus for room in rooms] == [1, 1]

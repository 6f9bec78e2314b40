"""The kinds of tasks there are, by the word that a spec writes: a new one is a file, and a line here."""

from collections.abc import Mapping
from typing import Any, Final

from pipelines.task_base.task import Task
from pipelines.task_base.yaml import TaskYaml
from pipelines.tasks.batch import BatchTask
from pipelines.tasks.classify_yaml import ClassifyYaml
from pipelines.tasks.embed import EmbedYaml
from pipelines.tasks.extract_yaml import ExtractYaml
from pipelines.tasks.generate_yaml import GenerateYaml
from pipelines.tasks.rerank import RerankYaml
from pipelines.tasks.several.task import SeveralTask

KINDS: Final[dict[str, type[TaskYaml]]] = {
    "generate": GenerateYaml,
    "classify": ClassifyYaml,
    "extract": ExtractYaml,
    "embed": EmbedYaml,
    "rerank": RerankYaml,
}

IMPLIED: Final[dict[str, type[Task]]] = {"batch": BatchTask, "several": SeveralTask}
"""Kinds that no spec writes as such: what is read, or how many are asked, says that it is one."""


def recorded_task(values: Mapping[str, Any]) -> type[Task]:
    """The class of a task by what a run's record has of it."""
    if values["kind"] in IMPLIED:
        return IMPLIED[values["kind"]]
    return KINDS[values["kind"]].recorded_as(values)


def recorded_parts(values: Mapping[str, Any]) -> dict[str, type[Task]]:
    """The classes of the tasks that one is made of, by name (`Task.parts`), by what a run's record has of it."""
    if values["kind"] == SeveralTask.kind:
        return {name: recorded_task(one) for name, one in values["tasks"].items()}
    return {"": recorded_task(values)}

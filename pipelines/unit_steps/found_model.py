"""A job's checkpoint, found on this machine: what it takes to prepare rows for it."""

from dataclasses import dataclass
from typing import Self

from models.checkpoint.found import FoundCheckpoint
from models.config.model_config import ModelConfig
from pipelines.job import Job
from pipelines.unit_steps.isolated_preparer import MAX_OVERRUNS, IsolatedPreparer


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundModel:
    """A checkpoint as far as it is found: where its description is, and what that says."""

    checkpoint: FoundCheckpoint
    config: ModelConfig

    @classmethod
    def of(cls, job: Job) -> Self:
        """Raises:
        ModelError: the job's checkpoint cannot be used.
        """
        checkpoint = job.model.find("description")
        return cls(checkpoint=checkpoint, config=ModelConfig.from_pretrained(checkpoint.folder))

    def preparer(self, job: Job, *, max_overruns: int = MAX_OVERRUNS) -> IsolatedPreparer:
        """What prepares rows for this model. Its process begins to read the tokenizer."""
        return IsolatedPreparer(job, self.checkpoint.folder, self.config, max_overruns=max_overruns)

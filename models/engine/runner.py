"""One rank's model and caches: takes a plan, gives the step's tokens.

The host sends integers by slot; block tables, sampling parameters and each slot's last sampled token stay here. On a
GPU `launch` only queues work, so the next plan can be launched before the first one's tokens reach the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from models.engine import caches
from models.engine.memory import MemoryPlan
from models.engine.options import EngineOptions
from models.engine.sampling.logprobs import LogprobTable, logprob_table
from models.engine.sampling.sampler import SamplingRow, is_plain_greedy, likeliest, sample
from models.engine.scheduling.plan import LAST_TOKEN, Admission, StepPlan
from models.engine.scheduling.scheduler import StepResult
from models.errors import ConfigError
from models.layers.attention.attention import Layout
from models.loading.load import LoadedModel
from models.networks.decoder import Batch

CPU_TOKEN_BUDGET = 1024
GPU_TOKEN_BUDGET = 8192
CPU_STEPS_IN_FLIGHT = 1  # launching is computing: a step that waits in line would only keep new requests out of it
GPU_STEPS_IN_FLIGHT = 2
LOGIT_ROWS = 256  # prompt positions whose vocabulary-wide logits exist at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchedStep:
    """A step on its way. `result` waits for the device."""

    tokens: torch.Tensor | None
    logprobs: dict[int, LogprobTable]
    prompt_logprobs: dict[int, list[LogprobTable]]

    def result(self) -> StepResult:
        """The step's tokens and log probabilities as plain numbers."""
        ids = [] if self.tokens is None else self.tokens.tolist()
        return StepResult(
            tokens=[[token] for token in ids],
            logprobs={index: table.entries() for index, table in self.logprobs.items()},
            prompt_logprobs={
                index: [entry for table in tables for entry in table.entries()]
                for index, tables in self.prompt_logprobs.items()
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _KeptStates:
    """States that a step leaves for prompts to come: (sequence, n, row) those `within` its share,
    as `Layout.kept` has them, and (slot, row) those that stand in their slots `after` the step."""

    within: list[tuple[int, int, int]] = field(default_factory=list)
    after: list[tuple[int, int]] = field(default_factory=list)


class Runner:
    """Executes plans on one loaded causal model."""

    def __init__(self, loaded: LoadedModel, options: EngineOptions) -> None:
        self._loaded, self._device, self._tp = loaded, loaded.device, loaded.tp
        self.block_size = options.block_size or loaded.backend.block_size
        _check_block_size(self.block_size, loaded)
        is_cpu = self._device.type == "cpu"
        self.max_steps_in_flight = CPU_STEPS_IN_FLIGHT if is_cpu else GPU_STEPS_IN_FLIGHT
        self.max_num_batched_tokens = options.max_num_batched_tokens or (
            CPU_TOKEN_BUDGET if is_cpu else GPU_TOKEN_BUDGET
        )
        specs = loaded.model.decoder.cache_specs
        cache_bytes = options.cache_bytes
        if cache_bytes is None:
            cache_bytes = caches.default_bytes(self._device, options.gpu_memory_fraction, num_sharing=self._tp.num_here)
        cache_bytes = self._tp.least(cache_bytes)
        self.max_num_seqs = caches.num_slots_for(
            specs, cache_bytes=cache_bytes, dtype=loaded.dtype, max_num_seqs=options.max_num_seqs
        )
        self.state_stride = options.state_stride_blocks(self.block_size)
        self.num_snapshots = caches.num_snapshots_for(
            specs,
            cache_bytes=cache_bytes,
            dtype=loaded.dtype,
            max_num_seqs=self.max_num_seqs,
            max_model_len=loaded.max_model_len,
            stride_tokens=self.state_stride * self.block_size,
        )
        self.num_blocks = caches.num_blocks_for(
            specs,
            cache_bytes=cache_bytes,
            block_size=self.block_size,
            dtype=loaded.dtype,
            max_num_seqs=self.max_num_seqs,
            max_model_len=loaded.max_model_len,
            num_snapshots=self.num_snapshots,
        )
        num_states = self.max_num_seqs + self.num_snapshots  # rows of kept states stand behind the slots
        self._caches = caches.allocate(
            specs,
            loaded.backend,
            num_blocks=self.num_blocks,
            block_size=self.block_size,
            dtype=loaded.dtype,
            device=self._device,
            num_slots=num_states,
        )
        self.memory = MemoryPlan(
            num_shards=self._tp.size,
            weights_bytes=loaded.weights_bytes,
            cache_bytes=self.num_blocks * self.block_size * caches.token_bytes(specs, loaded.dtype)
            + num_states * caches.state_bytes(specs, loaded.dtype),
            num_tokens=self.num_blocks * self.block_size,
            num_seqs=self.max_num_seqs,
            num_snapshots=self.num_snapshots,
        )
        self._pages = caches.pages_of(self._caches)
        width = -(-loaded.max_model_len // self.block_size)
        self._tables = np.zeros((self.max_num_seqs, width), dtype=np.int64)
        self._num_prompt = np.zeros(self.max_num_seqs, dtype=np.int64)
        self._last_tokens = torch.zeros(self.max_num_seqs, dtype=torch.int64, device=self._device)
        self._sampling: list[SamplingRow | None] = [None] * self.max_num_seqs
        self._is_plain_greedy = np.zeros(self.max_num_seqs, dtype=bool)
        self._history: torch.Tensor | None = None  # each slot's tokens by position, once a request looks back at them

    def launch(self, plan: StepPlan) -> LaunchedStep:
        """Computes a plan: on the CPU at once, on a GPU by queueing. Plans must be launched in the order they were
        made. Rank 0 launches; the other ranks `execute` the same plan."""
        self._tp.call("execute", plan)
        return self.execute(plan)

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> LaunchedStep:
        """Computes a rank's part of a plan. Only rank 0 knows the tokens' log probabilities."""
        self._apply(plan)
        slots, starts, counts = (np.array(column, dtype=np.int64) for column in (plan.slots, plan.starts, plan.counts))
        ends = np.cumsum(counts)
        samplers = np.flatnonzero(plan.is_sampling)
        target_rows = {
            index: np.arange(ends[index] - counts[index], ends[index] - counts[index] + len(targets))
            for index, targets in plan.targets.items()
        }
        rows = np.concatenate([ends[samplers] - 1, *target_rows.values()])
        kept = self._kept(plan)
        batch = self._batch(
            plan, slots, starts, counts, rows if rows.size else np.zeros(1, dtype=np.int64), kept.within
        )
        hidden = self._loaded.model(batch, self._caches)  # [R, H]
        caches.copy_states(self._caches, kept.after, self._device)
        tokens: torch.Tensor | None = None
        logprobs: dict[int, LogprobTable] = {}
        if samplers.size:
            tokens, logprobs = self._sample(hidden[: samplers.size], slots[samplers], (starts + counts)[samplers])
        prompt_logprobs = self._score_prompts(plan, slots, hidden[samplers.size :])
        return LaunchedStep(tokens=tokens, logprobs=logprobs, prompt_logprobs=prompt_logprobs)

    def _apply(self, plan: StepPlan) -> None:
        """Brings the per-slot state up to the plan."""
        for admission in plan.admitted:
            self._num_prompt[admission.slot] = admission.num_prompt
            self._sampling[admission.slot] = SamplingRow.of(admission, self._device)
            self._remember(admission)
            self._is_plain_greedy[admission.slot] = is_plain_greedy(admission.params)
        if plan.new_blocks:
            slots, places, blocks = np.array(plan.new_blocks).T
            self._tables[slots, places] = blocks
        if plan.fresh_blocks and self._loaded.backend.reads_whole_blocks:
            fresh = torch.tensor(plan.fresh_blocks, device=self._device)
            for pages in self._pages:
                pages.index_fill_(0, fresh, 0.0)
        if plan.copies:
            sources, targets = torch.tensor(plan.copies, device=self._device).T
            for pages in self._pages:
                pages.index_copy_(0, targets, pages.index_select(0, sources))
        moves = [(self.max_num_seqs + row, slot) for row, slot in plan.resumed]
        caches.copy_states(self._caches, moves, self._device)

    def _kept(self, plan: StepPlan) -> _KeptStates:
        """The plan's `kept` by when they are there."""
        places = {slot: index for index, slot in enumerate(plan.slots)} if plan.kept else {}
        kept = _KeptStates()
        for slot, end, row in plan.kept:
            index, target = places[slot], self.max_num_seqs + row
            count = end - plan.starts[index]
            if count == plan.counts[index]:
                kept.after.append((slot, target))
            else:
                kept.within.append((index, count, target))
        return kept

    def _remember(self, admission: Admission) -> None:
        """Keeps a sequence's tokens where its draws look back at them. Only rank 0 draws."""
        if not admission.params.looks_back or self._tp.rank > 0:
            return
        if self._history is None:
            shape = (self.max_num_seqs, self._loaded.max_model_len)
            self._history = torch.zeros(shape, dtype=torch.int64, device=self._device)
        tokens = torch.tensor(admission.token_ids, device=self._device)
        self._history[admission.slot, : tokens.numel()] = tokens

    def _batch(
        self,
        plan: StepPlan,
        slots: np.ndarray,
        starts: np.ndarray,
        counts: np.ndarray,
        rows: np.ndarray,
        kept: Sequence[tuple[int, int, int]],
    ) -> Batch:
        ids = np.array(plan.token_ids, dtype=np.int64)
        owner = np.repeat(np.arange(counts.size), counts)
        positions = starts[owner] + np.arange(ids.size) - np.repeat(np.cumsum(counts) - counts, counts)
        is_last = ids == LAST_TOKEN
        token_ids = torch.from_numpy(np.where(is_last, 0, ids)).to(self._device)
        if is_last.any():
            places = torch.from_numpy(np.flatnonzero(is_last)).to(self._device)
            token_ids[places] = self._last_tokens[torch.from_numpy(slots[owner[is_last]]).to(self._device)]
        width = -(-int((starts + counts).max()) // self.block_size)
        layout = Layout(
            counts=counts,
            starts=starts,
            tables=self._tables[slots, :width],
            block_size=self.block_size,
            slots=slots,
            num_given=self._num_prompt[slots],
            kept=tuple(kept),
        )
        return Batch(
            token_ids=token_ids,
            positions=torch.from_numpy(positions).to(self._device),
            attention=self._loaded.plan_attention(layout),
            rows=torch.from_numpy(rows).to(self._device),
            regimes=torch.tensor(plan.regimes)[torch.from_numpy(owner)].to(self._device) if plan.regimes else None,
            mamba=self._loaded.plan_mamba(layout),
        )

    def _sample(
        self, hidden: torch.Tensor, slots: np.ndarray, positions: np.ndarray
    ) -> tuple[torch.Tensor, dict[int, LogprobTable]]:
        """The next token of each slot, drawn by rank 0 and kept by all as its last token; log probabilities for the rows
        that ask."""
        logits = self._loaded.model.logits(hidden)  # [R, V]
        where = torch.from_numpy(slots).to(self._device)
        if self._tp.rank > 0:
            tokens = self._tp.broadcast(torch.empty(slots.size, dtype=torch.int64, device=self._device))
            self._last_tokens[where] = tokens
            return tokens, {}
        if self._is_plain_greedy[slots].all():
            tokens = self._tp.broadcast(likeliest(logits))
            self._last_tokens[where] = tokens
            return tokens, {}
        states = [self._sampling[slot] for slot in slots.tolist()]
        places = zip(states, slots.tolist(), positions.tolist(), strict=True)
        rows = [self._row_at(state, slot, position) for state, slot, position in places if state is not None]
        asked = [(index, row.params.logprobs) for index, row in enumerate(rows) if row.params.logprobs is not None]
        tokens = self._tp.broadcast(sample(logits, rows))
        self._last_tokens[where] = tokens
        if self._history is not None:
            self._history[where, torch.from_numpy(positions).to(self._device)] = tokens
        tables = {
            index: logprob_table(logits[index : index + 1].float(), tokens[index : index + 1], count)
            for index, count in asked
        }
        return tokens, tables

    def _row_at(self, state: SamplingRow, slot: int, position: int) -> SamplingRow:
        if self._history is None or not state.params.looks_back:
            return state.at(position)
        return state.at(position, self._history[slot, :position])

    def _score_prompts(self, plan: StepPlan, slots: np.ndarray, hidden: torch.Tensor) -> dict[int, list[LogprobTable]]:
        """Log probabilities of prompt tokens, `LOGIT_ROWS` positions at a time."""
        tables: dict[int, list[LogprobTable]] = {}
        first = 0
        for index, targets in plan.targets.items():
            state = self._sampling[int(slots[index])]
            assert state is not None
            assert state.params.prompt_logprobs is not None
            tables[index] = []
            for start in range(0, len(targets), LOGIT_ROWS):
                part = targets[start : start + LOGIT_ROWS]
                logits = self._loaded.model.logits(hidden[first + start : first + start + len(part)])
                ids = torch.tensor(part, device=self._device)
                if self._tp.rank == 0:
                    tables[index].append(logprob_table(logits.float(), ids, state.params.prompt_logprobs))
            first += len(targets)
        return tables


def _check_block_size(block_size: int, loaded: LoadedModel) -> None:
    multiple = loaded.backend.block_size if loaded.backend.name == "flash-attn" else 1
    if block_size < 1 or block_size % multiple:
        raise ConfigError(
            f"block_size was {block_size}; the {loaded.backend.name} backend takes positive multiples of {multiple}"
        )

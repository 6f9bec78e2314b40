"""Log probabilities of chosen tokens and of the likeliest ones, of the model's own distribution (before temperature
and filters)."""

from dataclasses import dataclass

import torch

from models.engine.scheduling.request import TokenLogprobs


@dataclass(frozen=True, kw_only=True, slots=True)
class LogprobTable:
    """Rows still on the device: tokens [R], their log probabilities and ranks [R], and the likeliest tokens with
    theirs [R, n]."""

    tokens: torch.Tensor
    chosen: torch.Tensor
    ranks: torch.Tensor
    top_ids: torch.Tensor
    top_values: torch.Tensor

    def entries(self) -> list[TokenLogprobs]:
        """One entry a row; waits for the device."""
        columns = (self.tokens, self.chosen, self.ranks, self.top_ids, self.top_values)
        return [
            TokenLogprobs(token_id=token, logprob=logprob, rank=rank, top=dict(zip(ids, values, strict=True)))
            for token, logprob, rank, ids, values in zip(*(column.tolist() for column in columns), strict=True)
        ]


def logprob_table(logits: torch.Tensor, tokens: torch.Tensor, num_top: int) -> LogprobTable:
    """Logits [R, V] float32 and token ids [R] -> their log probabilities, with the `num_top` likeliest tokens of
    each row, or all of them where the vocabulary is smaller."""
    logprobs = torch.log_softmax(logits, dim=-1)
    chosen = logprobs.gather(1, tokens[:, None])
    top = torch.topk(logprobs, min(num_top, logits.shape[1]), dim=-1)
    ranks = (logprobs > chosen).sum(-1) + 1
    return LogprobTable(tokens=tokens, chosen=chosen[:, 0], ranks=ranks, top_ids=top.indices, top_values=top.values)

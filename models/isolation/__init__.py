"""Work on what strangers wrote (their templates, their tokenizers), in processes that may be killed.

    pool = IsolatedPool(partial(Tokenizer.from_pretrained, folder), limits=ProcessLimits(memory_bytes=1 << 28, step_s=4.0))
    prompt_ids = pool.run(encode_prompt, messages)      # encode_prompt(tokenizer, messages), in a worker

A pool has one server process, which makes the context (here the tokenizer) and does nothing else, and workers, which
are forked from it in milliseconds and share its memory. A worker that takes too long, too much memory, or dies is
killed and replaced; the caller gets an `OverrunError`, other calls go on. Workers see no environment variable but a
few harmless ones, and end with the process that made the pool.

`pool` is the side of the caller, `server` and `worker` the processes, `steps` what a worker tells of its progress.
"""

from models.isolation.limits import ProcessLimits
from models.isolation.pool import IsolatedPool
from models.isolation.steps import step

__all__ = ["IsolatedPool", "ProcessLimits", "step"]

"""A process that has a pool whose worker is busy; see `work.start_holder`."""

import sys
import threading
import time
from functools import partial

from models.isolation import IsolatedPool, ProcessLimits
from tests.helpers.models import isolation_work as work

if __name__ == "__main__":
    pool = IsolatedPool(partial(work.context, 0), limits=ProcessLimits(memory_bytes=1 << 26, step_s=600.0))
    pids = f"{pool.run(work.parent_pid)} {pool.run(work.pid)}"
    threading.Thread(target=pool.run, args=(work.spin_at, [0], 600.0), daemon=True).start()
    time.sleep(0.5)
    sys.stdout.write(f"{pids}\n")
    sys.stdout.flush()
    time.sleep(600)

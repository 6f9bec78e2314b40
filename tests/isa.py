"""The numeric tests once for every instruction set that torch and oneDNN can be held to: `make isa`.

    python -m tests.isa [setting ...] [-- arguments of pytest]

Both libraries choose their code by the processor; a setting makes them take what another processor would get. What this
machine cannot do is skipped, and said. A setting that did not take effect counts as failed. Ends with 1 if any failed.
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass

import torch

NUMERIC = (
    "tests/models/layers",
    "tests/models/networks/test_parity.py",
    "tests/models/loading/test_quantization.py",
    "tests/models/networks/test_quantized_families.py",
    "tests/models/loading/test_load.py",
    "tests/models/networks/test_sharding.py",
    "tests/models/networks/test_two_way.py",
    "tests/models/networks/test_zamba2.py",
    "tests/models/engine/scoring/test_embeddings.py",
    "tests/models/engine/test_engine.py",
    "tests/models/engine/test_engine_states.py",
    "tests/models/engine/sampling/test_logprobs.py",
    "tests/models/engine/scoring/test_scorer.py",
    "tests/models/engine/test_windows_and_regimes.py",
)
CAPABILITY = "import torch; print(torch.backends.cpu.get_cpu_capability())"
PRODUCT = "import torch; torch.ops.mkldnn._linear_pointwise(torch.ones(4, 8), torch.ones(8, 8), None, 'none', [], '')"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """An environment variable, what the processor must have for it (torch's names), and what a short program then
    prints."""

    variable: str
    value: str
    needs: tuple[str, ...]
    program: str
    prints: str

    @property
    def name(self) -> str:
        return f"{self.variable}={self.value}"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {self.variable: self.value}


AVX512 = ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")
SETTINGS = (
    Setting(variable="ATEN_CPU_CAPABILITY", value="default", needs=(), program=CAPABILITY, prints="DEFAULT"),
    Setting(variable="ATEN_CPU_CAPABILITY", value="avx2", needs=("avx2",), program=CAPABILITY, prints="AVX2"),
    Setting(variable="ONEDNN_MAX_CPU_ISA", value="AVX2", needs=("avx2",), program=PRODUCT, prints="isa:Intel AVX2"),
    Setting(
        variable="ONEDNN_MAX_CPU_ISA",
        value="AVX512_CORE",
        needs=AVX512,
        program=PRODUCT,
        prints="isa:Intel AVX-512 with AVX512BW",
    ),
    Setting(
        variable="ONEDNN_MAX_CPU_ISA",
        value="AVX512_CORE_BF16",
        needs=(*AVX512, "avx512_bf16"),
        program=PRODUCT,
        prints="isa:Intel AVX-512 with.*bfloat16",
    ),
)


def main() -> int:
    """Runs the settings named, or all; returns the exit status."""
    names, _, rest = " ".join(sys.argv[1:]).partition("--")
    chosen = [setting for setting in SETTINGS if not names.split() or setting.name in names.split()]
    if not chosen:
        print(f"no such setting: {names}; they are {', '.join(each.name for each in SETTINGS)}")  # noqa: T201
        return 2
    results = {setting.name: run(setting, rest.split()) for setting in chosen}
    print("\n" + "\n".join(f"{name:38} {result}" for name, result in results.items()))  # noqa: T201
    return int(any(result.startswith("failed") for result in results.values()))


def run(setting: Setting, arguments: list[str]) -> str:
    """What became of the tests under this setting."""
    lacking = [need for need in setting.needs if not torch.cpu.get_capabilities().get(need)]
    if lacking:
        return f"skipped: this processor has no {', '.join(lacking)}"
    said = reported(setting)
    if not re.search(setting.prints, said):
        return f"failed: the setting took no effect; asked for {setting.prints!r}, found {said!r}"
    print(f"\n== {setting.name}", flush=True)  # noqa: T201
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", *NUMERIC, *arguments]
    status = subprocess.run(command, env=setting.environment, check=False).returncode
    return f"{'passed' if status == 0 else f'failed with {status}'} in {time.monotonic() - start:.0f} s"


def reported(setting: Setting) -> str:
    """What the library itself says that it computes with."""
    environment = setting.environment | {"ONEDNN_VERBOSE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", setting.program], env=environment, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if "onednn_verbose" not in line or "isa:" in line]
    return "; ".join(lines) + done.stderr


if __name__ == "__main__":
    sys.exit(main())

"""What a cascade costs and how right it is: `python tests/benchmarks/cascade.py OUT [--rows N] [--calibration-rows N]`.

The large model is the demo's classifier, the small one a quarter as wide with a single layer, trained here by the demo's trainer on
the same stream of tickets. Both are run alone over tickets that neither has seen, then the cascade with the bound that `millrace
calibrate` finds on other tickets. It prints, of each run, the share of right labels and the prompt tokens of each model.
"""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
import yaml
from tokenizers import Tokenizer as Backend

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jobs.demo import CHECKPOINTS
from jobs.demo import vocabulary as words
from jobs.demo.checkpoint import save_settings, save_weights
from jobs.demo.corpus import make_tickets, row_of
from jobs.demo.examples import job_examples
from jobs.demo.network import Network, Shape
from jobs.demo.tokenizer import END_OF_TEXT
from jobs.demo.train import stream_of
from jobs.demo.training import Course, train

ROOT = Path(__file__).resolve().parents[2]
LARGE = CHECKPOINTS / "sequence-classification"
SMALL = Shape(
    vocab_size=2048,
    hidden_size=32,
    intermediate_size=88,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=32,
    max_position_embeddings=768,
)
COURSE = Course(num_batches=400, matrix_rate=0.01, other_rate=0.004)
TRAINING_SEED, CALIBRATION_SEED, TEST_SEED = 31, 32, 33
ACCURACY = 0.99


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a run came to: the share of right labels, and the prompt tokens of each model by name."""

    accuracy: float
    tokens: dict[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=4000, help="tickets that are labelled")
    parser.add_argument("--calibration-rows", type=int, default=4000, help="labelled tickets to find the bound on")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    small = trained_small(out / "small")
    tickets(out / "calibration.jsonl", arguments.calibration_rows, seed=CALIBRATION_SEED)
    tickets(out / "test.jsonl", arguments.rows, seed=TEST_SEED)
    cascade: list[dict[str, Any]] = [{"model": str(small)}, {"model": str(LARGE)}]
    spec = written(out, "calibration", {"cascade": cascade}, "calibration.jsonl")
    said = millrace(
        "calibrate", spec, "--truth", "category", "--accuracy", str(ACCURACY), "--rows", str(arguments.calibration_rows)
    )
    say(said)
    found = re.search(r"cascade\[0\]\.until\.score: (\S+)", said)
    assert found, "no bound was found"
    cascade[0]["until"] = {"score": float(found[1])}
    runs: dict[str, dict[str, Any]] = {
        "large": {"model": {"path": str(LARGE)}},
        "small": {"model": {"path": str(small)}},
        "both": {"cascade": cascade},
    }
    figures = {name: run(out, name, models) for name, models in runs.items()}
    for name, each in figures.items():
        say(f"{name}: {each.accuracy:.2%} right, prompt tokens {each.tokens}")
    large, both = figures["large"], figures["both"]
    share = both.tokens[LARGE.name] / large.tokens[LARGE.name]
    say(
        f"the cascade is {100 * (both.accuracy - large.accuracy):+.2f} points from the large model, at {share:.1%} of its tokens"
    )


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def trained_small(folder: Path) -> Path:
    """The small checkpoint, trained unless it is there already."""
    if (folder / "model.safetensors").exists():
        return folder
    backend = Backend.from_file(str(LARGE / "tokenizer.json"))
    save_settings(SMALL, "sequence-classification", backend, folder, labels=words.CATEGORIES)
    pad_id = backend.token_to_id(END_OF_TEXT)
    assert pad_id is not None
    torch.manual_seed(TRAINING_SEED)
    torch.set_num_threads(1)
    network = Network(SMALL, "sequence-classification", num_labels=len(words.CATEGORIES))
    train(
        network,
        stream_of([job_examples("category", folder)], seed=TRAINING_SEED),
        COURSE,
        pad_id=pad_id,
        seed=TRAINING_SEED,
    )
    save_weights(network, folder)
    return folder


def tickets(path: Path, count: int, *, seed: int) -> None:
    with path.open("wb") as file:
        for ticket in make_tickets(count, seed=seed):
            file.write(orjson.dumps(row_of(ticket) | {"category": ticket.category}, default=str) + b"\n")


def written(out: Path, name: str, models: dict[str, Any], corpus: str) -> Path:
    spec = out / f"{name}.yaml"
    values = {
        "name": name,
        **models,
        "task": {"kind": "classify", "text": "{{ body }}"},
        "input": {"paths": [str(out / corpus)], "columns": ["ticket_id"]},
        "output": {"path": str(out / "runs" / name)},
        "report": {"truth": "category"},
    }
    spec.write_text(yaml.safe_dump(values))
    return spec


def millrace(*arguments: object) -> str:
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def run(out: Path, name: str, models: dict[str, Any]) -> Figures:
    millrace("run", written(out, name, models, "test.jsonl"))
    report = json.loads((out / "runs" / name / "report.json").read_bytes())
    models_of = report["models"] or [
        {"name": Path(models["model"]["path"]).name, "prompt_tokens": report["prompt_tokens"]}
    ]
    return Figures(
        accuracy=report["truth"]["accuracy"], tokens={each["name"]: each["prompt_tokens"] for each in models_of}
    )


if __name__ == "__main__":
    main()

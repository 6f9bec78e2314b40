"""Inputs from the field whose right answer hangs on the checkpoint, as a job runs them: read, prepared, computed, finished.

The specs and inputs are in `tests/cases`, their checkpoints are made of the demo's. What is right is what transformers' pipelines answer
over the same files.
"""

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from actors.online.local import LocalModel
from jobs.errors import SpecError
from jobs.spec.job import LoadedSpec, load_spec
from jobs.spec.preflight import check_before_run
from tests.helpers.actors.serving import load, served, serving
from tests.helpers.jobs.answered_here import answered_here, opened_here
from tests.pipelines.units.test_reading import Corpus

CASES = Path(__file__).parents[2] / "cases"
DEMO = Path(__file__).parents[3] / "jobs/demo/checkpoints"
Rows = list[dict[str, Any]]
Maker = Callable[[Path], None]


def made(folder: Path, head: str, change: Maker) -> Path:
    """A copy of one of the demo's checkpoints, changed."""
    shutil.copytree(DEMO / head, folder)
    change(folder)
    return folder


def change_config(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}, file, {"format": "pt"})


def extra_tag(folder: Path) -> None:
    """One more tag, [PAD], that is never predicted."""
    names = json.loads((folder / "config.json").read_text())["id2label"]
    names[str(len(names))] = "[PAD]"
    change_config(folder, id2label=names, label2id={name: int(number) for number, name in names.items()})
    change_tensors(
        folder,
        lambda tensors: (
            tensors
            | {
                "score.weight": torch.cat([tensors["score.weight"], torch.zeros_like(tensors["score.weight"][:1])]),
                "score.bias": torch.cat([tensors["score.bias"], torch.full_like(tensors["score.bias"][:1], -10000)]),
            }
        ),
    )


def one_label(folder: Path) -> None:
    """The first class alone, without a problem_type."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("problem_type", None)
    config |= {"id2label": {"0": "relevant"}, "label2id": {"relevant": 0}}
    (folder / "config.json").write_text(json.dumps(config))
    change_tensors(folder, lambda tensors: tensors | {"score.weight": tensors["score.weight"][:1]})


def only_strings(folder: Path) -> None:
    """Content where it is a string, else the empty string, as Qwen3's published template has it."""
    (folder / "chat_template.jinja").write_text(
        "{%- for message in messages %}{%- if message.content is string %}{%- set content = message.content %}{%- else %}"
        "{%- set content = '' %}{%- endif %}{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    )


def no_content(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n<|im_end|>\\n' }}{%- endfor %}"
    )


def adapter(folder: Path) -> None:
    """A LoRA pair on the first layer's q_proj."""
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    save_file(
        {name.format("A"): torch.ones(2, 8), name.format("B"): torch.ones(8, 2)}, folder / "adapter_model.safetensors"
    )


def loaded(case: str, model: Path, tmp_path: Path, **changes: str) -> LoadedSpec:
    overrides = {
        "model.path": str(model),
        "input.paths": json.dumps([str(CASES / case / "input.jsonl")]),
        "output.path": str(tmp_path / "out"),
    } | changes
    return load_spec(CASES / case / "spec.yaml", overrides=[f"{key}={value}" for key, value in overrides.items()])


def run(spec: LoadedSpec) -> Rows:
    """The rows that a job writes, computed in this process."""
    answered = answered_here(spec)
    assert answered.failures == []
    return answered.rows


def inputs(case: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CASES / case / "input.jsonl").read_text().splitlines()]


def entities(model: Path, text: str) -> list[tuple[str, str, float]]:
    """Labels, texts and scores of transformers' pipeline, whose starts include the space before."""
    tagger: Any = pipeline("token-classification", str(model), aggregation_strategy="simple", dtype=torch.float32)
    found = tagger(text) if text else []
    return [(one["entity_group"], text[one["start"] : one["end"]].strip(), float(one["score"])) for one in found]


def spans(row: dict[str, Any]) -> list[tuple[str, str, Any]]:
    assert all(row["body"][span["start"] : span["end"]] == span["text"] for span in row["spans"])
    return [(span["label"], span["text"], pytest.approx(span["score"], abs=1e-4)) for span in row["spans"]]


def test_a_tag_without_a_prefix_leaves_the_others_spans_whole(tmp_path: Path) -> None:
    model = made(tmp_path / "model", "token-classification", extra_tag)
    rows = run(loaded("ner-extra-tag", model, tmp_path))
    assert [spans(row) for row in rows] == [entities(model, row["body"]) for row in rows]
    assert [(span["label"], span["start"], span["end"]) for span in rows[0]["spans"]] == [("PERSON", 18, 29)]
    assert [(span["label"], span["start"], span["end"]) for span in rows[1]["spans"]] == [
        ("PERSON", 5, 13),
        ("PRODUCT", 39, 43),
    ]


def test_spans_of_decomposed_text_are_those_of_composed_text(tmp_path: Path) -> None:
    model = DEMO / "token-classification"
    rows = run(loaded("nfd-span-cut", model, tmp_path))
    for decomposed, composed in zip(rows[:4], rows[4:], strict=True):
        assert unicodedata.normalize("NFC", decomposed["body"]) == composed["body"]
        assert spans(composed) == entities(model, composed["body"])
        for one, other in zip(decomposed["spans"], composed["spans"], strict=True):
            assert unicodedata.normalize("NFC", one["text"]) == other["text"]
            assert (
                unicodedata.normalize("NFD", other["text"])
                == one["text"]
                == decomposed["body"][one["start"] : one["end"]]
            )
            assert one["score"] == other["score"]
    assert [(row["spans"][0]["start"], row["spans"][0]["end"]) for row in (rows[0], rows[2], rows[3])] == [
        (18, 29),
        (11, 17),
        (11, 20),
    ]


def test_spans_and_answers_over_http_are_whole_too(tmp_path: Path) -> None:
    texts = [row["body"] for row in inputs("nfd-span-cut")]
    folders = {"tagger": DEMO / "token-classification", "reader": DEMO / "question-answering"}
    models: dict[str, LocalModel] = {name: load(folder) for name, folder in folders.items()}
    with serving([served(name, folders[name], model) for name, model in models.items()]) as address:
        found = post(address, model="tagger", input=texts)
        answers = post(address, model="reader", input=texts, question="Who is writing?")
    for model in models.values():
        model.close()
    assert [[span["text"] for span in one["spans"]] for one in found[:4]] == [
        [unicodedata.normalize("NFD", span["text"]) for span in one["spans"]] for one in found[4:]
    ]
    shown = [one["answer"] and one["answer"]["text"] for one in answers]
    assert shown[:4] == [text and unicodedata.normalize("NFD", text) for text in shown[4:]]
    assert any(shown)


def post(address: str, **body: Any) -> Rows:
    response = httpx.post(f"{address}/v1/extract", json=body, timeout=60)
    data: Rows = response.json()["data"]
    return data


def test_one_class_without_a_problem_type_gives_its_probability(tmp_path: Path) -> None:
    model = made(tmp_path / "model", "sequence-classification", one_label)
    rows = run(loaded("one-label-head", model, tmp_path))
    classifier: Any = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32),
        tokenizer=AutoTokenizer.from_pretrained(model),
    )
    expected = classifier([row["body"] for row in inputs("one-label-head")])
    assert [row["label"] for row in rows] == [one["label"] for one in expected] == ["relevant", "relevant"]
    assert [row["score"] for row in rows] == pytest.approx([one["score"] for one in expected], abs=1e-5)
    assert [row["scores"] for row in rows] == [{"relevant": row["score"]} for row in rows]


def test_parts_give_the_prompts_that_text_gives(tmp_path: Path) -> None:
    model = made(tmp_path / "model", "causal", only_strings)
    theirs: Any = AutoTokenizer.from_pretrained(model)
    spec = loaded("qwen3-content-parts", model, tmp_path)
    [unit] = Corpus(*map(Path, spec.job.input.paths)).read()
    with opened_here(spec) as found:
        prepared = found.preparers[0].prepare(unit)
    for request, row in zip(prepared.requests, inputs("qwen3-content-parts"), strict=True):
        messages = [{"role": "user", "content": row["body"]}]
        assert request.token_ids.tolist() == theirs.apply_chat_template(messages, add_generation_prompt=True).input_ids


def test_a_template_that_loses_what_users_say_is_an_error_of_the_spec(tmp_path: Path) -> None:
    model = made(tmp_path / "model", "causal", no_content)
    with pytest.raises(SpecError, match=r"task\.messages\[0\]\.content: the chat template leaves out what users say"):
        check_before_run(loaded("qwen3-content-parts", model, tmp_path))
    labels = '{kind: classify, messages: [{role: user, content: "{{ body }}"}], labels: [a, b]}'
    with pytest.raises(SpecError, match=r"task\.messages\[0\]\.content: the chat template leaves out what users say"):
        check_before_run(loaded("qwen3-content-parts", model, tmp_path, task=labels))


def test_an_adapter_beside_the_model_is_refused_by_both_files(tmp_path: Path) -> None:
    model = made(tmp_path / "model", "sequence-classification", adapter)
    said = r"model\.path: .* holds an adapter \(adapter_config\.json, adapter_model\.safetensors\) beside a model's weights"
    with pytest.raises(SpecError, match=said):
        check_before_run(loaded("adapter-beside-model", model, tmp_path))

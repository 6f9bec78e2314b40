"""What a place holds instead of, or beside, weights that are read here: which layout it is, and what to do.

Knows names of files and tensors, and settings; opens nothing. Every text names what was found.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

ADAPTER_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "adapters.safetensors",
    "adapters.npz",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MAX_NAMES_SHOWN = 8
_GIVE_UNQUANTIZED = "give the unquantized checkpoint, which can be quantized while it is loaded (model.quantization)"
_GIVE_PUBLISHED = "give the safetensors checkpoint that they were made from"
_MERGE = "merge it into its base model and give that (peft: merge_and_unload, save_pretrained)"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Files, or tensors, by their names' patterns; what they are, with what is to be known of them; what to do."""

    patterns: tuple[str, ...]
    what: str
    remedy: str = _GIVE_PUBLISHED


_FILES = (
    _Layout(patterns=("*.gguf",), what="GGUF files ({names}), which are quantized for llama.cpp"),
    _Layout(patterns=("weights.npz", "weights.*.npz"), what="weights of MLX ({names}), Apple's framework"),
    _Layout(
        patterns=("*.onnx", "*.onnx_data", "onnx", "onnx/*"),
        what="an ONNX export ({names}), which is a graph for another runtime",
    ),
    _Layout(patterns=("openvino_*",), what="an OpenVINO export ({names}), which is a graph for another runtime"),
    _Layout(patterns=("*.engine", "*.plan"), what="a TensorRT engine ({names}), which is compiled for one GPU"),
    _Layout(
        patterns=("*.mlpackage", "*.mlmodelc", "*.mlpackage/*"), what="a Core ML export ({names}), for Apple's runtime"
    ),
    _Layout(patterns=("*.tflite", "*.litertlm", "*.pte", "*.task"), what="an export for mobile runtimes ({names})"),
    _Layout(
        patterns=("*.nemo",),
        what="an archive of NVIDIA NeMo ({names})",
        remedy="export it to a Hugging Face checkpoint",
    ),
    _Layout(patterns=("tf_model*.h5", "flax_model*.msgpack"), what="weights for TensorFlow or Flax ({names})"),
    _Layout(
        patterns=("*.distcp",),
        what="a distributed checkpoint of a training run ({names})",
        remedy="save the model as safetensors (transformers: save_pretrained)",
    ),
    _Layout(
        patterns=("consolidated*.safetensors", "consolidated*.pth"),
        what="weights in the layout of their authors' own code ({names})",
        remedy="give the checkpoint that is published for transformers, or convert it",
    ),
)

_QUANTIZED_BY = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "hf_quant_config.json": "NVIDIA ModelOpt",
}
"""Files that say how weights are quantized where config.json may not."""

_METHODS = {
    "aqlm": "AQLM",
    "auto-round": "AutoRound",
    "awq": "AWQ",
    "bitnet": "BitNet",
    "compressed-tensors": "compressed-tensors (llm-compressor)",
    "eetq": "EETQ",
    "exl2": "ExLlamaV2",
    "exl3": "ExLlamaV3",
    "fbgemm_fp8": "FBGEMM's FP8",
    "finegrained_fp8": "FP8 in blocks",
    "fp8": "FP8",
    "gptq": "GPTQ",
    "higgs": "HIGGS",
    "hqq": "HQQ",
    "modelopt": "NVIDIA ModelOpt",
    "mxfp4": "MXFP4",
    "quanto": "Quanto",
    "quark": "AMD Quark",
    "spqr": "SpQR",
    "torchao": "torchao",
    "vptq": "VPTQ",
}

_TENSORS = (
    _Layout(patterns=("*.qweight",), what="packed by GPTQ, AWQ or one of their like", remedy=_GIVE_UNQUANTIZED),
    _Layout(
        patterns=("*.weight_packed",), what="packed by compressed-tensors (llm-compressor)", remedy=_GIVE_UNQUANTIZED
    ),
    _Layout(
        patterns=("*.weight_scale_inv", "*.weight_scale"), what="the scale of a weight in FP8", remedy=_GIVE_UNQUANTIZED
    ),
    _Layout(patterns=("*.biases",), what="of a weight that MLX quantized", remedy=_GIVE_UNQUANTIZED),
    _Layout(
        patterns=("*.lora_A.*", "*.lora_B.*", "*.base_layer.*"), what="of an adapter that is not merged", remedy=_MERGE
    ),
    _Layout(
        patterns=("tok_embeddings.weight", "layers.*.attention.wq.weight"),
        what="named as in the authors' own code",
        remedy="give the checkpoint that is published for transformers, or convert it",
    ),
)


def adapter_beside(place: str, names: Collection[str]) -> str | None:
    """Why a place with an adapter beside a model's weights is refused; None if it holds no
    adapter."""
    found = [name for name in ADAPTER_FILES if name in names]
    if not found:
        return None
    return (
        f"{place} holds an adapter ({', '.join(found)}) beside a model's weights, and adapters are not applied here: merge it into the "
        "model and give the result (peft: merge_and_unload, save_pretrained), or move these files away to have the model without it"
    )


def quantized_by_file(place: str, names: Collection[str]) -> str | None:
    """Why a place is refused that has a quantizer's file of settings; None if it has no such
    file."""
    found = next((name for name in _QUANTIZED_BY if name in names), None)
    if found is None:
        return None
    return f"{place} holds weights quantized with {_QUANTIZED_BY[found]} ({found}), which is not read here: {_GIVE_UNQUANTIZED}"


def other_files(place: str, names: Collection[str]) -> str | None:
    """What a place holds that has no safetensors weights of a model; None if nothing here knows it."""
    found = [name for name in ADAPTER_FILES if name in names]
    if found:
        return f"{place} holds an adapter ({', '.join(found)}), which changes a model and is not one: {_MERGE}"
    for layout in _FILES:
        if matching := _matching(names, layout.patterns):
            return f"{place} holds {layout.what.format(names=listed(matching))}: {layout.remedy}"
    return None


def pickled(names: Collection[str]) -> str | None:
    """The pickled weights of a place, and what to do; None if it has no pickled weights."""
    found = _matching(names, PICKLES)
    if not found:
        return None
    return (
        f"only pickled weights ({listed(found)}), which are never opened, since a pickle can run code: save the model again as "
        "safetensors (transformers: save_pretrained)"
    )


def quantized_by(method: object, settings: Mapping[str, object]) -> str:
    """Whose layout a `quantization_config` describes, as a note; "" where it says nothing known."""
    name = str(method).rpartition("/")[2].replace("_", "-") if method is not None else ""
    known = _METHODS.get(str(method)) or _METHODS.get(name)
    if known is None and method is None and {"bits", "group_size"} <= settings.keys():
        known = "MLX"
    return f", weights in the layout of {known}, which is not read here" if known else ""


def other_tensors(place: str, dtypes: Mapping[str, str]) -> str | None:
    """What tensors (name to safetensors dtype) belong to that no float or bitsandbytes checkpoint has; None if none does."""
    for layout in _TENSORS:
        if matching := _matching(dtypes, layout.patterns):
            return f"{place}: {matching[0]} is {layout.what}, which is not read here: {layout.remedy}"
    eight_bits = sorted(name for name, dtype in dtypes.items() if dtype.startswith("F8_"))
    if eight_bits:
        return f"{place}: {eight_bits[0]} is a weight in FP8 ({dtypes[eight_bits[0]]}), which is not read here: {_GIVE_UNQUANTIZED}"
    return None


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = len(names) - _MAX_NAMES_SHOWN
    return ", ".join(names[:_MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _matching(names: Collection[str], patterns: Sequence[str]) -> list[str]:
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))

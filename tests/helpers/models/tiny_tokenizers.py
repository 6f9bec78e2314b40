"""Tiny tokenizers of the kinds that are published, trained on a few lines and saved by transformers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TOKENIZER_FILE = "tokenizer.json"
CORPUS = [
    "Hello world, how are you today? I'm fine, thanks — and you?",
    "  indented text\n\twith tabs\n\n and   runs of spaces  ",
    "Ärger über größere Übungen; naïve café, Zürich 12345 67.89",
    "日本語の文章です。中文也可以。한국어 문장",
    "emoji 😀 👩‍👩‍👧‍👦 🇩🇪 and e\u0301 combining",
    "user assistant system think tool_call im_start im_end <|>/ [INST]",
] * 3
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- 'You may call these functions:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools>\\nAnswer a call as <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string
        and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}
            {{- content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if call.function %}
                    {%- set call = call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' }}
                {%- if call.arguments is string %}
                    {{- call.arguments }}
                {%- else %}
                    {{- call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""


def special(content: str, **settings: bool) -> AddedToken:
    return AddedToken(content, special=True, normalized=False, **settings)


def qwen(folder: Path) -> None:
    """Byte-level BPE as Qwen3's: NFC, no special token around a text, added tokens that are not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    train(
        tokenizer,
        trainers.BpeTrainer(vocab_size=420, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.add_special_tokens([special(name) for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    plain = ("<tool_call>", "</tool_call>", "<think>", "</think>", "<|fim_prefix|>")
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in plain])
    save(folder, tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE)
    rename_class(folder, "Qwen2Tokenizer")


def llama3(folder: Path) -> None:
    """Byte-level BPE as Llama 3's: digits by threes, one special token before a text, and whole words of the vocabulary taken
    before any merge, some of which no merges lead to."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    train(tokenizer, trainers.BpeTrainer(vocab_size=420, show_progress=False, initial_alphabet=alphabet))
    description = json.loads(tokenizer.to_str())
    vocabulary = description["model"]["vocab"]
    vocabulary |= {word: len(vocabulary) + number for number, word in enumerate(("Ġtrailing", "zero", "\u010a\u010a"))}
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.add_special_tokens([special(name) for name in ("<|begin_of_text|>", "<|eot_id|>", "<|end|>")])
    begin = [("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))]
    pair = "<|begin_of_text|> $A <|begin_of_text|> $B:1"
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing("<|begin_of_text|> $A", pair, begin)]
    )
    save(folder, tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


def qwen_reranker(folder: Path) -> None:
    """The same with the tokens yes and no, which a vocabulary of Qwen3's size has."""
    qwen(folder)
    file = folder / TOKENIZER_FILE
    tokenizer = json.loads(file.read_text())
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    number = 1 + max(*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"]))
    for first, second in (("n", "o"), ("y", "e"), ("ye", "s")):
        if first + second not in vocabulary:
            vocabulary[first + second] = number
            merges.append([first, second])
            number += 1
    file.write_text(json.dumps(tokenizer))


def byte_level_with_prefix(folder: Path) -> None:
    """Byte-level BPE with a space before the text, trimmed offsets, and special tokens around texts and pairs."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<s>", "</s>", "<pad>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    train(
        tokenizer,
        trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=alphabet, special_tokens=names),
    )
    tokenizer.add_special_tokens([special("<mask>", lstrip=True), special("<eot>", rstrip=True)])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 1)]),
        ]
    )
    save(
        folder,
        tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        mask_token=special("<mask>", lstrip=True),
    )


def sentencepiece(folder: Path) -> None:
    """BPE with byte fallback as converted from sentencepiece (Zamba2, Phi-3): a space is put before, and taken off."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    corpus = [text for text in CORPUS if text.isascii()]
    trainer = trainers.BpeTrainer(vocab_size=480, show_progress=False, special_tokens=names, max_token_length=12)
    tokenizer.train_from_iterator(corpus, trainer)
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = [
        token for token in description["added_tokens"] if not token["content"].startswith("<0x")
    ]
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.add_special_tokens([special("<|end|>", rstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B:1", [("<s>", 1)])
    save(folder, tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>")


def metaspace(folder: Path) -> None:
    """Unigram with a space before the first word only, as newer conversions from sentencepiece have it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
    )
    train(tokenizer, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> $B </s>", [("<s>", 1), ("</s>", 2)]
    )
    save(folder, tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def word_piece(folder: Path) -> None:
    """WordPiece over lower-cased words, with special tokens that are looked for in normalized text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    train(tokenizer, trainers.WordPieceTrainer(vocab_size=300, show_progress=False, special_tokens=names))
    tokenizer.add_tokens([AddedToken("[end]", special=True, normalized=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    save(folder, tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


KINDS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (qwen, llama3, byte_level_with_prefix, sentencepiece, metaspace, word_piece)
}


def train(tokenizer: Tokenizer, trainer: Any) -> None:
    tokenizer.train_from_iterator(CORPUS, trainer)


def save(folder: Path, tokenizer: Tokenizer, **settings: Any) -> None:
    """Writes the files of a tokenizer, and enough of a config.json for AutoTokenizer."""
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast
    make(tokenizer_object=tokenizer, **settings).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))


def rename_class(folder: Path, name: str) -> None:
    change_config(folder, tokenizer_class=name)


def change_config(folder: Path, **fields: Any) -> Path:
    """Changes fields of tokenizer_config.json; a field that is `...` is removed."""
    file = folder / "tokenizer_config.json"
    changed = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({name: value for name, value in changed.items() if value is not ...}))
    return folder

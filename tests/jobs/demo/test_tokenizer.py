"""The demo's tokenizer: Qwen's layout, and the same ids as transformers makes of its files."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from jobs.demo.corpus import make_tickets
from jobs.demo.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer

TEXTS = ["Grüße aus Łódź 🚨🙏", "李 小龍 wrote:\n\n> ¡Hola!", "naïve café\t€49.99", "👩‍👩‍👧 family", "<|im_end|>"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_special_tokens_have_the_last_ids(tokenizer: Tokenizer) -> None:
    size = tokenizer.get_vocab_size()
    assert size == 500
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [size - 3, size - 2, size - 1]


def test_training_again_gives_the_same_tokenizer(tokenizer: Tokenizer) -> None:
    again = train_tokenizer((ticket.body for ticket in make_tickets(300, seed=3)), vocab_size=500)
    assert again.to_str() == tokenizer.to_str()


def test_transformers_reads_the_same_ids_offsets_and_chat(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path, max_length=64)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    bodies = [ticket.body for ticket in make_tickets(40, seed=4)]
    for body in bodies + TEXTS:
        encoding = theirs("Who is writing?", body, return_offsets_mapping=True)
        ours = tokenizer.encode("Who is writing?", body)
        assert (encoding.input_ids, encoding.offset_mapping) == (ours.ids, ours.offsets)
    assert (theirs.eos_token, theirs.pad_token, theirs.model_max_length) == ("<|im_end|>", "<|endoftext|>", 64)
    chat = theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"

"""Text to token ids and back, as the checkpoint's own tokenizer does it.

`Tokenizer` is what the rest of the project sees: encoding (with protected row text), offsets, decoding, chat
templates.
"""

import datetime as dt
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import tokenizers

from models.checkpoint.place import description_folder
from models.errors import RequestError
from models.text.chat import ChatTemplates
from models.text.chat_content import ChatContent
from models.text.continuations import Continuations, Prompt, continuations
from models.text.cuts import Cuts
from models.text.detokenizer import IncrementalDetokenizer, stream_maker, token_bytes
from models.text.folds import Folds, Offset
from models.text.guarded import GuardedTokenizer
from models.text.special_text import SpecialText, without_leading_breaks
from models.text.tokenizer_files import DEFAULT_TEMPLATE, TOKENIZER_FILE, TokenizerFiles, readable_tokenizer

_PROBED_DATE = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """Token ids of a text or a pair of texts, and where each token comes from.

    `offsets` are characters of the token's own text, end exclusive, (0, 0) for a special token; they cover all that the
    normalizer folded into the token. `sequence_ids` is 0 in the first text, 1 in the second, None for a special token.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    sequence_ids: list[int | None]


class Tokenizer:
    """A checkpoint's tokenizer.

    Strings of special tokens become their ids wherever they stand in a text, as in transformers, but for text that
    went through `protect`. `special_tokens` are those that `protect` guards: special ones, and added ones that the
    chat template itself writes (Qwen's `<think>` is no special token, but speaks in the template's voice). Safe to
    use from several threads.
    """

    def __init__(self, files: TokenizerFiles, *, now: dt.datetime | None = None) -> None:
        self._now = now
        self._backend, self._named, self._skipped = files.backend, files.named, files.special
        self._templates = files.templates
        self._chat = ChatTemplates(files.templates, files.named)
        self._special = _special_text(files)
        self._guarded_once: GuardedTokenizer | None = None
        self._folds = Folds(files.backend.normalizer)
        self._cuts = Cuts.of(files.backend)
        self._make_stream = stream_maker(files.backend)
        self._bytes: dict[int, bytes] = {}  # of tokens that were asked for
        self._lock = threading.Lock()
        self._content: ChatContent | None = None

    @property
    def now(self) -> dt.datetime | None:
        """What chat templates are told is now, where `render_chat` is not given another."""
        return self._now

    @classmethod
    def from_pretrained(cls, path: str | Path, *, now: dt.datetime | None = None) -> "Tokenizer":
        """Reads a checkpoint's tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat templates; `path` is whatever
        `models.checkpoint.place` finds, `now` what chat templates are told where `render_chat` is not given another.

        Raises:
            CheckpointError: the place cannot be read.
            TokenizerError: a file is missing or cannot be used; the text names it.
        """
        files = TokenizerFiles.read(description_folder(path))
        with readable_tokenizer(files.folder / TOKENIZER_FILE):
            return cls(files, now=now)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def bos_token_id(self) -> int | None:
        return self._id_of("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        return self._id_of("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        return self._id_of("pad_token")

    @property
    def chat_template(self) -> str | None:
        """The default chat template's source."""
        return self._templates.get(DEFAULT_TEMPLATE)

    @property
    def special_tokens(self) -> frozenset[str]:
        """The strings that `protect` keeps from becoming special tokens."""
        return self._special.strings

    def id_of(self, token: str) -> int | None:
        """The number of a token by its own name, None where there is none; no text is encoded."""
        found: int | None = self._backend.token_to_id(token)
        return found

    def is_special(self, token_id: int) -> bool:
        """Whether a token is a special one, as `AutoTokenizer.all_special_ids` lists them."""
        return self._backend.id_to_token(token_id) in self._skipped

    @cached_property
    def num_special_around(self) -> tuple[int, int]:
        """How many special tokens are put before a text, and behind it."""
        bare, whole = self.encode("a", add_special_tokens=False), self.encode("a")
        num_special = len(whole) - len(bare)
        before = next(start for start in range(num_special + 1) if whole[start : start + len(bare)] == bare)
        return before, num_special - before

    def protect(self, text: str) -> str:
        """Marks the special strings in a row's text, so that they stay text whatever the row is put into.

        Raises:
            RequestError: the text names a special token that this tokenizer makes out of plain text too.
        """
        protected = self._special.protect(text)
        if protected != text:
            self._refuse_unguardable([text])
        return protected

    def prepare(self) -> None:
        """Makes what is otherwise made when the first special string turns up, which takes a second where a vocabulary is large."""
        self._guarded  # noqa: B018  made by being asked for

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids; those of `AutoTokenizer(text)` where nothing is protected.

        Raises:
            RequestError: the text is not Unicode (a lone surrogate).
        """
        if self._special.is_marked(text):
            return self._encode_marked([text], add_special_tokens=add_special_tokens)[0]
        try:
            ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        except TypeError as error:
            raise _not_unicode([text]) from error
        return ids

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """Token ids of many texts, on several cores; the same as one by one.

        Raises:
            RequestError: a text is not Unicode (a lone surrogate).
        """
        marked = [place for place, text in enumerate(texts) if self._special.is_marked(text)]
        places = frozenset(marked)
        plain = [text for place, text in enumerate(texts) if place not in places]
        try:
            encodings = iter(self._backend.encode_batch_fast(plain, add_special_tokens=add_special_tokens))
        except TypeError as error:
            raise _not_unicode(plain) from error
        if not marked:
            return [encoding.ids for encoding in encodings]
        guarded = iter(self._encode_marked([texts[place] for place in marked], add_special_tokens=add_special_tokens))
        return [next(guarded) if place in places else next(encodings).ids for place in range(len(texts))]

    def encode_continued(self, prompt: str, texts: Sequence[str], *, max_chars: int | None = None) -> Continuations:
        """How each of at least one text goes on from a prompt, both tokenized together, without special tokens around them.

        Raises:
            RequestError: a text is not Unicode, or with this tokenizer more than `max_chars` would have to be encoded.
        """
        encode = partial(self.encode_batch, add_special_tokens=False)
        backend: tokenizers.Tokenizer | GuardedTokenizer = self._backend
        cuts: Cuts | None = self._cuts
        if self._special.is_marked(prompt):
            encode = partial(self._encode_marked, add_special_tokens=False)
            backend, cuts = self._guarded, self._guarded.cuts
            prompt = without_leading_breaks(prompt)
        elif any(self._special.is_marked(prompt[-1:] + text) for text in texts):
            cuts = None  # they are encoded with another make of the tokenizer than the prompt
        (encoding,) = backend.encode_batch([prompt], add_special_tokens=False)
        found = Prompt(text=prompt, encoding=encoding, cuts=cuts)
        return continuations(encode, found, texts, max_chars=max_chars)

    def encode_pairs(self, texts: Sequence[str], pairs: Sequence[str]) -> list[list[int]]:
        """Token ids of pairs of unprotected texts, with special tokens added; special strings in them stay text.

        Raises:
            RequestError: a text is not Unicode (a lone surrogate), or names a special token that this tokenizer makes
                out of plain text too.
        """
        rows = list(zip(texts, pairs, strict=True))
        marked = [(self._special.mark(text), self._special.mark(pair)) for text, pair in rows]
        try:
            if marked == rows:
                return [encoding.ids for encoding in self._backend.encode_batch_fast(rows)]
            found = self._guarded.encode_batch(marked)
        except TypeError as error:
            raise _not_unicode([text for row in rows for text in row]) from error
        self._refuse_unguardable([text for row in rows for text in row])
        return list(map(self._guarded.ids_of, found))

    def encode_with_offsets(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoding]:
        """Encodes unprotected texts, or pairs of them, with special tokens added; special strings in them stay text.

        Raises:
            RequestError: a text is not Unicode (a lone surrogate), or names a special token that this tokenizer makes
                out of plain text too.
        """
        columns = [texts] if pairs is None else [texts, pairs]
        rows = list(zip(*columns, strict=True))
        marked = [tuple(map(self._special.mark, row)) for row in rows]
        inputs = marked if pairs is not None else [text for (text,) in marked]
        try:
            if marked == rows:
                found = self._backend.encode_batch(inputs)
                return [
                    self._encoding(encoding, encoding.ids, encoding.offsets, row)
                    for encoding, row in zip(found, rows, strict=True)
                ]
            found = self._guarded.encode_batch(inputs)
        except TypeError as error:
            raise _not_unicode([text for row in rows for text in row]) from error
        self._refuse_unguardable([text for row in rows for text in row])
        return [
            self._encoding(encoding, self._guarded.ids_of(encoding), self._original_offsets(encoding, marks), row)
            for encoding, marks, row in zip(found, marked, rows, strict=True)
        ]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids; ids that name no token are left out."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """What one token adds to a text's UTF-8, perhaps half a character; special tokens their string, ids that name
        no token nothing."""
        if token_id not in self._bytes:
            token = self._backend.id_to_token(token_id)
            self._bytes[token_id] = b"" if token is None else token_bytes(self._backend, token)
        return self._bytes[token_id]

    def detokenizer(self) -> IncrementalDetokenizer:
        """Turns ids to text as they come; together exactly `decode` of them all."""
        return IncrementalDetokenizer(self._make_stream(), self._backend.id_to_token, self._skipped)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        now: dt.datetime | None = None,
        **kwargs: Any,
    ) -> str:
        """The chat template over these messages, to be encoded with `add_special_tokens=False`.

        The prompt ends where the model is to answer: after the header of an answer (`add_generation_prompt`, the
        default), or, with `continue_final_message`, in the middle of the last message, which the model goes on with.
        Text of rows in the messages is protected by the caller, before. `now` is the date that templates may ask
        for: the run's own, so that a row gives the same prompt whenever it is rendered. Further arguments are the
        template's variables, `documents` among them.

        Raises:
            TemplateError: there is no template, it is broken, it refuses these messages, or it goes over its limits.
        """
        return self._chat.render(
            messages,
            tools=tools,
            add_generation_prompt=not continue_final_message
            if add_generation_prompt is None
            else add_generation_prompt,
            continue_final_message=continue_final_message,
            now=now or self._now,
            variables=kwargs,
        )

    def chat_content(self, **kwargs: Any) -> ChatContent:
        """Which form of a message's content the chat template takes, with these variables: for messages to be fitted to it before
        `render_chat`. Found out once for no variables, which may be a request's own.
        """
        if kwargs:
            return self._probed(kwargs)
        if self._content is None:
            self._content = self._probed({})
        return self._content

    def _probed(self, variables: Mapping[str, Any]) -> ChatContent:
        return ChatContent.of(lambda messages: self.render_chat(messages, now=_PROBED_DATE, **variables))

    def _id_of(self, name: str) -> int | None:
        return self._backend.token_to_id(self._named[name]) if name in self._named else None

    @property
    def _guarded(self) -> GuardedTokenizer:
        """Made when the first special string turns up: few texts have one."""
        with self._lock:
            if self._guarded_once is None:
                self._guarded_once = GuardedTokenizer(self._backend, self._special)
            return self._guarded_once

    def _encode_marked(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        guarded = self._guarded
        trimmed = list(map(without_leading_breaks, texts))
        try:
            return guarded.encode_ids(trimmed, add_special_tokens=add_special_tokens)
        except TypeError as error:
            raise _not_unicode(texts) from error

    def _original_offsets(self, encoding: tokenizers.Encoding, marked: Sequence[str]) -> list[Offset]:
        """Offsets in the texts before they were marked."""
        positions = list(map(self._special.original_positions, marked))
        return [
            (start, end) if sequence is None else (positions[sequence][start], positions[sequence][end])
            for (start, end), sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True)
        ]

    def _encoding(
        self, found: tokenizers.Encoding, ids: list[int], offsets: list[Offset], texts: Sequence[str]
    ) -> Encoding:
        """The encoding of a text or a pair of texts; `offsets` are the tokens' in them, as the library aligns them."""
        sequences: list[int | None] = found.sequence_ids
        for sequence, text in enumerate(texts):
            if not self._folds.may_be_in(text):
                continue
            places = [place for place, of in enumerate(sequences) if of == sequence]
            widened = self._folds.widen(text, [offsets[place] for place in places])
            for place, offset in zip(places, widened, strict=True):
                offsets[place] = offset
        return Encoding(ids=ids, offsets=offsets, sequence_ids=sequences)

    def _refuse_unguardable(self, texts: Sequence[str]) -> None:
        for string in self._guarded.unguardable:
            if any(string in text for text in texts):
                raise RequestError(
                    f"the text holds {string!r}, which this tokenizer makes a special token even of plain text; "
                    "remove it"
                )


def _special_text(files: TokenizerFiles) -> SpecialText:
    """Special tokens, and the added ones that a chat template writes; not blanks, which every text has."""
    written = "\0".join(files.templates.values())
    added = files.backend.get_added_tokens_decoder().values()
    strings = files.special | {
        token.content for token in added if token.content in written and not token.content.isspace()
    }
    return SpecialText(strings, always=any(token.normalized and token.content in strings for token in added))


def _not_unicode(texts: Sequence[str]) -> RequestError:
    """Why the tokenizer did not take a text: Rust's strings hold no surrogates."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return RequestError(f"the text is not Unicode: half a surrogate pair at character {error.start}; remove it")
    return RequestError("the text is not a string")

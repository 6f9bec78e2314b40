"""Texts of an extraction as windows of tokens that know the characters they stand for.

Special-token strings are always text here, in templates too, so that offsets count the characters of the rendered text.
"""

import pyarrow as pa

from models.tasks.document import Document, DocumentPart
from models.tasks.windows import Window
from pipelines.task_base.requests import Int32Array, ModelRequest, Piece
from pipelines.tasks.encoding import too_long
from pipelines.tasks.windows import WindowSize

_REMEDY = "shorten the question, raise task.window or lower task.stride"

START, END = pa.field("start", pa.int64()), pa.field("end", pa.int64())
TEXT, SCORE = pa.field("text", pa.string()), pa.field("score", pa.float32())


def document_windows(document: Document, size: WindowSize) -> list[Window]:
    """The windows of a text, none if it has no tokens.

    Raises:
        RowError: what stands around the text leaves no room for it.
    """
    room = document.room(size.window)
    if document.num_tokens <= room or room > size.stride:
        return document.cut(room=room, overlap=size.stride)
    what = f"the question leaves {max(room, 0)} tokens of a window to the text, which is not more than the stride"
    raise too_long(what, size.window, _REMEDY)


def piece_of(part: DocumentPart) -> Piece:
    """A part of a document as a request."""
    return Piece(token_ids=part.token_ids, offsets=part.offsets)


def offsets_of(request: ModelRequest) -> Int32Array:
    """The characters of each token of a request [T, 2]."""
    assert request.offsets is not None, "a request of an extraction has offsets"
    return request.offsets

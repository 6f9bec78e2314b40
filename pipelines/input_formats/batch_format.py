"""OpenAI's batch files as an input: JSON lines whose columns are known, so that no body is looked at while the input is planned."""

from dataclasses import replace
from typing import Final

import pyarrow as pa

from pipelines.formats.batch_lines import BATCH_FORMAT, LINE_KEYS
from pipelines.input_formats.input_format import ColumnsAtHead, Stretch, UnitsFound, UnitsWanted
from pipelines.input_formats.jsonl_format import JSONL, scan_lines
from pipelines.io.inputs import Storage

_SCHEMA: Final = pa.schema([pa.field(name, pa.string()) for name in LINE_KEYS])
"""What stands on a line. Nothing is made to fit these types: the lines are read as they are."""


def _columns_at_head(storage: Storage, path: str) -> ColumnsAtHead:
    del storage, path
    return ColumnsAtHead(names=LINE_KEYS, is_all=False)


def _scan(wanted: UnitsWanted, stretch: Stretch) -> UnitsFound:
    return scan_lines(wanted, stretch).finish(schema=_SCHEMA)


BATCH = replace(
    JSONL,
    name=BATCH_FORMAT,
    title="OpenAI batch",
    columns_at_head=_columns_at_head,
    scan=_scan,
)
"""Its files have the endings of JSON lines, which they are unless a spec says this."""

"""Some rows from places all over an input, for what has to be known of it before anything is planned.

Little is read however large the input is: of a few files some stretches where their format can begin anywhere, else the beginning of
what can only be read from there - the file, or its row groups. Which ones follows from the seed and the listing.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from pipelines.errors import PlanError, RowError
from pipelines.formats.schema import Columns, parse_types, select_columns
from pipelines.input_formats.input_format import Stretch, UnitsWanted
from pipelines.input_formats.table import FORMATS
from pipelines.io.inputs import Storage
from pipelines.job import InputSpec
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.units.listing import SourceFile
from pipelines.units.numbering import Numbering
from pipelines.units.reading import UnitReader, group_units
from pipelines.units.scanning import FileStretch, Scanner
from pipelines.units.schemas import Schemas

Row = Mapping[str, Any]

MAX_FILES: Final = 8
PLACES: Final = 16
"""Of all files together, about."""
NEIGHBOURS: Final = 32
"""Rows of one place."""
PLACE_BYTES: Final = 256 << 10
"""What is looked at to find a place in text."""

_SCANNED_ROWS: Final = 4096


def rows_at_places(files: Sequence[SourceFile], spec: InputSpec, columns: Columns, *, seed: int) -> list[Row]:
    """About `PLACES * NEIGHBOURS` rows, fewer of a small input, with the values of the columns that are read as far as a row has them.
    Rows that cannot be read are left out.

    Raises:
        PlanError: a file cannot be scanned, or types conflict.
    """
    draw = random.Random(seed)
    filled = [file for file in files if file.size]
    picked = [filled[number] for number in sorted(draw.sample(range(len(filled)), min(MAX_FILES, len(filled))))]
    declared = parse_types(spec.schema or {})
    storage = Storage.of(spec)
    wanted = UnitsWanted(
        storage=storage,
        columns=columns,
        unit_rows=_SCANNED_ROWS,
        declared=frozenset(declared),
        enough_rows=PLACES * NEIGHBOURS,
    )
    schemas = Schemas(columns=columns, declared=declared)
    units = list(_units(picked, wanted, schemas, draw))
    found = schemas.merged()
    if not any(map(columns.is_needed, found.names)):
        return []
    reader = UnitReader(schema=select_columns(found, columns), declared=frozenset(declared), storage=storage)
    read = (unit for unit in reader.read_units(units) if not isinstance(unit, UnreadableUnit))
    rows = chain.from_iterable(unit.rows.values(columns.read) for unit in read)
    return [row for row in rows if not isinstance(row, RowError)]


def _units(files: Sequence[SourceFile], wanted: UnitsWanted, schemas: Schemas, draw: random.Random) -> Iterator[Unit]:
    """A unit for each place."""
    units: list[Unit] = []
    numbering = Numbering(files=files, sink=units.extend, limit=None)
    scan = Scanner(wanted=wanted)
    for number, (file, of_file) in enumerate(zip(files, _dealt(PLACES, len(files)), strict=True)):
        stretches = _stretches(number, file, of_file)
        for finding, num_places in zip(scan(stretches), _dealt(of_file, len(stretches)), strict=True):
            if finding.problem is not None:
                raise PlanError(finding.problem, path=file.path)
            schemas.add(finding.units, file.path)
            numbering.add(finding)
            numbering.flush()
            yield from _drawn(units, num_places, draw)
            units.clear()


def _dealt(number: int, among: int) -> list[int]:
    """`number` in as many shares, as equal as they can be."""
    return [number * (place + 1) // among - number * place // among for place in range(among)]


def _stretches(number: int, file: SourceFile, num_places: int) -> list[FileStretch]:
    """At most so many stretches at even distances, short ones, or the whole file."""
    format = FORMATS[file.format]
    ranges = list(format.stretches(file.path, file.size, max(PLACE_BYTES, -(-file.size // num_places))))
    is_short = len(ranges) > 1
    return [
        FileStretch(
            file=number,
            format=file.format,
            stretch=Stretch(
                path=file.path, size=file.size, start=start, end=min(end, start + PLACE_BYTES) if is_short else end
            ),
        )
        for start, end in ranges
    ]


def _drawn(units: Sequence[Unit], num_places: int, draw: random.Random) -> Iterator[Unit]:
    """The beginnings of units that can be read without those before them; of one, where there are fewer than places, more rows."""
    first = [group[0] for group in group_units(units)]
    picked = sorted(draw.sample(range(len(first)), min(num_places, len(first))))
    for place, share in zip(picked, _dealt(num_places, len(picked)), strict=True):
        yield replace(first[place], num_rows=min(NEIGHBOURS * share, first[place].num_rows))

"""A comparison as text for a terminal."""

from collections.abc import Sequence
from typing import Any

from jobs.compare.compare import Comparison, Differing, OnlyIn
from jobs.compare.tally import AgreementTally
from jobs.report.rows import shortened
from jobs.show.terminal import in_a_line
from pipelines.formats.json_values import dump_json

MAX_LABELS = 20
_MAX_LABEL_CHARS, _MAX_RESULT_CHARS = 24, 100


def comparison_text(found: Comparison, shown: Sequence[Differing], diff: str | None) -> str:
    """All of it; `shown` are the first rows that differ, `diff` is the file that has them all."""
    tally, a, b = found.tally, found.sides.a.name, found.sides.b.name
    part, compared = found.sides.a.output.part, found.sides.a.output.task.compared
    by = "file and row number" if found.by is None else f"the value of {found.by}"
    sections = [
        [f"task  {part}"] if part else [],
        [
            f"a  {a}",
            f"b  {b}",
            f"{tally.num_rows:,} rows have a result in both, matched by {by}; compared: {compared.what}",
        ],
        _figures(tally, compared.what),
        _only(found),
        _labels(tally),
        _rows(found, shown, diff),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def _figures(tally: AgreementTally, what: str) -> list[str]:
    lines = []
    if tally.agreement is not None:
        equal = f"{tally.num_equal:,} of {tally.num_answered:,} rows have equal {what}"
        lines.append(f"agreement      {tally.agreement:.4f}  {equal}")
    if tally.pairs and tally.is_one_label:
        lines.append(f"Cohen's kappa  {_kappa(tally.kappa)}")
    if tally.mean_difference is not None:
        lines.append(
            f"numbers        mean difference {tally.mean_difference:.3g}, largest {tally.largest:.3g}, over {tally.num_numbers:,}"
        )
    return lines


def _kappa(kappa: float | None) -> str:
    return "not defined: both gave one label to every row" if kappa is None else f"{kappa:.4f}"


def _only(found: Comparison) -> list[str]:
    pairs: Sequence[tuple[str, str, OnlyIn]] = (("a", "b", found.only_a), ("b", "a", found.only_b))
    lines = [
        f"  only in {one}  {only.num_failed + only.num_absent:,}: {only.num_failed:,} are dead letters in {other}, "
        f"{only.num_absent:,} are not there"
        for one, other, only in pairs
        if only.num_failed or only.num_absent
    ]
    lines += [f"  in none    {found.num_without:,}"] if found.num_without else []
    return ["rows that do not have a result in both", *lines] if lines else []


def _labels(tally: AgreementTally) -> list[str]:
    """Which label met which; where rows have several, how each was given."""
    found = tally.labels()
    if not found:
        return []
    shown = [one.label for one in found[:MAX_LABELS]]
    more = [] if len(found) <= MAX_LABELS else [f"  and {len(found) - MAX_LABELS:,} labels more"]
    if not tally.is_one_label:
        rows = [
            [
                _label(one.label),
                *(f"{count:,}" for count in (one.both, one.only_a, one.only_b, one.neither)),
                _short_kappa(one.kappa),
            ]
            for one in found[:MAX_LABELS]
        ]
        return [
            "labels, by the rows that have them",
            *_table([["", "both", "a alone", "b alone", "neither", "kappa"], *rows]),
            *more,
        ]
    rows = [[_label(a), *(f"{tally.pairs[a, b]:,}" for b in shown)] for a in shown]
    return ["labels, of a down, of b across", *_table([["", *map(_label, shown)], *rows]), *more]


def _short_kappa(kappa: float | None) -> str:
    return "-" if kappa is None else f"{kappa:.4f}"


def _label(label: str) -> str:
    return in_a_line(shortened(label, _MAX_LABEL_CHARS))


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _rows(found: Comparison, shown: Sequence[Differing], diff: str | None) -> list[str]:
    total = found.tally.num_differing + sum(only.num_failed + only.num_absent for only in (found.only_a, found.only_b))
    if not total:
        return ["no row differs"]
    lines = [f"rows that differ, {len(shown):,} of {total:,}"] if shown else [f"{total:,} rows differ"]
    for row in shown:
        lines.append(f"  {in_a_line(row.place.path)}, row {row.place.number:,}: {row.differs}")
        values = row.as_json()
        lines += [f"    {side}  {_result(values[side])}" for side in ("a", "b")]
    return [*lines, *([] if diff is None else [f"all are in {diff}"])]


def _result(value: Any) -> str:
    return (
        "none" if value is None else in_a_line(shortened(dump_json(value).decode(errors="replace"), _MAX_RESULT_CHARS))
    )

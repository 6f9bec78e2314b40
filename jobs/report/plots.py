"""A report's plots as SVG text to stand inside a page. Numbers in, pictures out."""

import io
from collections.abc import Callable
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jobs.report.facts import Histogram, Timeline
from jobs.report.truth_facts import NUM_BINS, Reliability

INK, FAINT, BLUE, AMBER = "#1f2937", "#9ca3af", "#2563eb", "#d97706"

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
}


def timeline_svg(timeline: Timeline) -> str:
    """Rows a second and tokens computed a second over active time, one above the other."""

    def draw(figure: Figure) -> None:
        rows_axes, tokens_axes = figure.subplots(2, 1, sharex=True)
        edges = [index * timeline.bin_s for index in range(len(timeline.rows_per_s) + 1)]
        rows_axes.stairs(timeline.rows_per_s, edges, fill=True, color=BLUE, alpha=0.85)
        tokens_axes.stairs(timeline.tokens_per_s, edges, fill=True, color=AMBER, alpha=0.85)
        rows_axes.set_ylabel("rows/s")
        tokens_axes.set_ylabel("computed tokens/s")
        tokens_axes.set_xlabel("seconds of work")
        for axes in (rows_axes, tokens_axes):
            _plain_numbers(axes)
            axes.set_xlim(0, edges[-1])

    return _svg("timeline", draw, width=11.0, height=3.8)


def histogram_svg(lengths: Histogram, *, name: str, unit: str) -> str:
    """Rows by length, with the median and the 95th percentile marked. `name` keeps the ids of several plots of a page apart."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.stairs(lengths.counts, lengths.edges, fill=True, color=BLUE, alpha=0.85)
        axes.set_ylim(0, 1.25 * max(lengths.counts))
        for value, label, height in ((lengths.median, "median", 0.99), (lengths.p95, "95%", 0.88)):
            is_far_right = value - lengths.edges[0] > 0.75 * (lengths.edges[-1] - lengths.edges[0])
            axes.axvline(value, color=AMBER, linewidth=1.2)
            axes.annotate(
                f"{label} {value:,}",
                (value, height),
                xycoords=("data", "axes fraction"),
                xytext=(-4 if is_far_right else 4, 0),
                textcoords="offset points",
                ha="right" if is_far_right else "left",
                va="top",
                color="#92400e",
            )
        axes.set_xlabel(unit)
        axes.set_ylabel("rows")
        axes.set_xlim(lengths.edges[0], lengths.edges[-1])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _plain_numbers(axes)

    return _svg(name, draw, width=5.4, height=2.7)


def reliability_svg(reliability: Reliability) -> str:
    """The share that was right in each bin of scores beside the one that would be as good as the scores say: the diagonal."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle="--")
        bins = zip(reliability.counts, reliability.shares_right, strict=True)
        for place, (count, share) in enumerate(bins):
            if share is not None:
                middle = (place + 0.5) / NUM_BINS
                axes.bar(middle, share, width=0.92 / NUM_BINS, color=BLUE, alpha=0.85)
                axes.annotate(
                    f"{count:,}",
                    (middle, share),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=8,
                )
        points = zip(reliability.mean_scores, reliability.shares_right, strict=True)
        means = [(mean, share) for mean, share in points if mean is not None and share is not None]
        axes.plot([mean for mean, _ in means], [share for _, share in means], "o", color=AMBER, markersize=4)
        axes.set_xlabel("score")
        axes.set_ylabel("share right")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.1)
        axes.set_xticks([place / 5 for place in range(6)])
        axes.set_yticks([place / 5 for place in range(6)])

    return _svg("reliability", draw, width=5.4, height=3.6)


def _plain_numbers(axes: Axes) -> None:
    whole = FuncFormatter(lambda value, _: f"{value:,.0f}" if value == int(value) else f"{value:,.1f}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(whole)
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _svg(name: str, draw: Callable[[Figure], None], *, width: float, height: float) -> str:
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]

"""A report's facts as one HTML page that needs nothing else: no scripts, no files, everything from rows escaped."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jobs.report.facts import ReportFacts
from jobs.report.plots import histogram_svg, reliability_svg, timeline_svg
from jobs.show.progress import duration, speed


def report_page(facts: ReportFacts) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("jobs.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(grouped=_grouped, speed=speed, duration=duration)
    plots = {
        "timeline": facts.timeline and Markup(timeline_svg(facts.timeline)),
        "prompt_lengths": facts.prompt_lengths
        and Markup(histogram_svg(facts.prompt_lengths, name="prompt-lengths", unit="prompt tokens")),
        "completion_lengths": facts.completion_lengths
        and Markup(histogram_svg(facts.completion_lengths, name="completion-lengths", unit="completion tokens")),
        "reliability": {
            task.name: Markup(reliability_svg(task.truth.reliability))
            for task in facts.tasks
            if task.truth is not None and task.truth.reliability is not None
        },
    }
    return environment.get_template("report.html").render(facts=facts, plots=plots)


def _grouped(count: int) -> str:
    return f"{count:,}"

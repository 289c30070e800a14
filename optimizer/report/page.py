"""The report as one HTML file: no network, no script needed to read it.

Everything is inside the file: style, pictures (SVG), data, and plotly.js for the interactive
front. Names come from users and are escaped wherever they stand; a content security policy in the
page forbids every connection, so that even a mistake here could call nobody.
"""

import base64
import json
from dataclasses import asdict
from functools import partial
from importlib.resources import files
from typing import Any

from optimizer.front.asking import Question
from optimizer.front.of_study import blocks_in, front_of_study
from optimizer.report.album import Picture
from optimizer.report.content import Content, Evidence, content_of
from optimizer.saturation.result import load_saturation
from optimizer.study.study import SearchStudy
from optimizer.workspace import Workspace
from search_spaces.metrics import METRICS, Scale


def html_of_study(study: SearchStudy, workspace: Workspace, question: Question) -> str:
    """Write a study's report.

    Raises:
        WorkspaceError: Raw blocks or a saturation that cannot be read.
    """
    front = front_of_study(study, workspace, question)
    evidence = Evidence(
        blocks_of=blocks_in(workspace), saturation_of=partial(load_saturation, workspace)
    )
    return html_of_content(content_of(study, front, question, evidence))


def html_of_content(content: Content) -> str:
    """Write a report as HTML."""
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = _data_uri
    return environment.from_string(_text("page.html.jinja")).render(
        content=content,
        data=_data(content),
        style=_text("page.css"),
        script=_text("page.js"),
        plotly=get_plotlyjs(),
    )


def _data(content: Content) -> str:
    """Return what the script draws, as JSON that cannot end the element it stands in."""
    document = {
        "objectives": content.objectives,
        "knee": content.knee,
        "points": [asdict(point) for point in content.points],
        "metrics": _metrics(content),
    }
    return json.dumps(document).replace("<", "\\u003c").replace("&", "\\u0026")


def _metrics(content: Content) -> dict[str, dict[str, Any]]:
    measured = {name for point in content.points for name in point.metrics}
    return {
        name: {
            "label": metric.label,
            "better": "lower" if metric.direction.value == "minimize" else "higher",
            "log": metric.scale is Scale.LOG,
        }
        for name, metric in METRICS.items()
        if name in measured
    }


def _data_uri(picture: Picture) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.svg.encode()).decode()}"


def _text(name: str) -> str:
    return files("optimizer.report").joinpath(name).read_text(encoding="utf-8")

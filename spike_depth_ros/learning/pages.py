"""Reports as HTML pages: plain data, rendered by `templates/report.html`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader


class Table(NamedTuple):
    """A table; numbers are right-aligned, floats have three significant digits."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    kind: str = 'table'

    @property
    def numeric(self) -> list[bool]:
        """Returns for each column whether its first cell is a number."""
        first = self.rows[0] if self.rows else [''] * len(self.header)
        return [isinstance(cell, (int, float)) for cell in first]


class Figure(NamedTuple):
    """A picture or a video (.webm) in the folder of the page."""

    file: str
    caption: str
    kind: str = 'figure'


class Row(NamedTuple):
    """Figures side by side if the window is wide enough."""

    figures: Sequence[Figure]
    kind: str = 'row'


class Paragraph(NamedTuple):
    """Plain text."""

    text: str
    kind: str = 'paragraph'


class Section(NamedTuple):
    """A heading and its content."""

    title: str
    parts: Sequence[Table | Figure | Row | Paragraph]


def write_page(path: Path, title: str, lead: str, sections: Iterable[Section]) -> None:
    """Renders a report.

    Args:
        path: the file to write.
        title: title of the page.
        lead: one line below the title.
        sections: content of the page; text is escaped.
    """
    environment = Environment(
        loader=PackageLoader('spike_depth_ros.learning'), autoescape=True, trim_blocks=True
    )
    environment.filters['cell_text'] = cell_text
    page = environment.get_template('report.html')
    text = page.render(title=title, lead=lead, sections=list(sections))
    path.write_text(text + '\n', encoding='utf-8')


def cell_text(value: Any) -> str:
    """Formats a table cell: integers with separators, floats with three significant digits."""
    if isinstance(value, float) and math.isfinite(value):
        return f'{value:.3g}' if abs(value) < 1000 else f'{value:,.0f}'
    return f'{value:,}' if isinstance(value, int) else str(value)

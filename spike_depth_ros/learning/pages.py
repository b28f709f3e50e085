"""Tables and reports as plain data, rendered as Markdown and HTML (`templates/report.html`)."""

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

    @property
    def numeric(self) -> list[bool]:
        """Returns for each column whether its first cell is a number."""
        first = self.rows[0] if self.rows else [''] * len(self.header)
        return [isinstance(cell, (int, float)) for cell in first]


class Figure(NamedTuple):
    """A picture or a video (.webm) in the folder of the page."""

    file: str
    caption: str


class Row(NamedTuple):
    """Figures side by side if the window is wide enough."""

    figures: Sequence[Figure]


class Paragraph(NamedTuple):
    """Plain text."""

    text: str


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
    environment.filters |= {'cell_text': cell_text, 'kind': lambda part: type(part).__name__}
    page = environment.get_template('report.html')
    text = page.render(title=title, lead=lead, sections=list(sections))
    path.write_text(text + '\n', encoding='utf-8')


def cell_text(value: Any) -> str:
    """Formats a table cell: integers with separators, floats with three digits, NaN empty."""
    if isinstance(value, float) and math.isfinite(value):
        return f'{value:.3g}' if abs(value) < 1000 else f'{value:,.0f}'
    if isinstance(value, float) and math.isnan(value):
        return ''
    return f'{value:,}' if isinstance(value, int) else str(value)


def markdown(table: Table) -> str:
    """Formats a table in Markdown."""
    lines = ['| ' + ' | '.join(table.header) + ' |', '|' + '---|' * len(table.header)]
    lines += ['| ' + ' | '.join(map(cell_text, row)) + ' |' for row in table.rows]
    return '\n'.join(lines) + '\n'

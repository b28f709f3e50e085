"""One HTML page per report, complete in its folder: no script, no font, nothing from the net."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #777; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.lead { color: var(--quiet); margin-top: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
figure { margin: 1rem 0; } figcaption { color: var(--quiet); font-size: .9rem; }
img, video { max-width: 100%; height: auto; border-radius: 4px; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
"""


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table; numbers stand right, floats have three significant digits."""
    body = [[(_text(cell), isinstance(cell, (int, float))) for cell in row] for row in rows]
    numeric = [bool(body) and body[0][k][1] for k in range(len(header))]
    head = ''.join(_cell('th', html.escape(h), n) for h, n in zip(header, numeric, strict=True))
    lines = [''.join(_cell('td', text, number) for text, number in row) for row in body]
    rows_html = '\n'.join(f'<tr>{line}</tr>' for line in lines)
    return f'<table><thead><tr>{head}</tr></thead>\n<tbody>{rows_html}</tbody></table>'


def figure(file: str, caption: str) -> str:
    """A picture or a video (.webm) that lies beside the page."""
    source = html.escape(file)
    media = (
        f'<video src="{source}" controls autoplay muted loop playsinline></video>'
        if file.endswith('.webm')
        else f'<img src="{source}" alt="{html.escape(caption)}">'
    )
    return f'<figure>{media}<figcaption>{html.escape(caption)}</figcaption></figure>'


def row(figures: Iterable[str]) -> str:
    """Figures side by side where the window is wide enough."""
    return f'<div class="row">{"".join(figures)}</div>'


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it (HTML)."""
    return f'<h2>{html.escape(title)}</h2>\n' + '\n'.join(parts)


def paragraph(text: str) -> str:
    """Plain text as one paragraph."""
    return f'<p>{html.escape(text)}</p>'


def write_page(path: Path, title: str, lead: str, sections: Iterable[str]) -> None:
    """Writes the page."""
    body = '\n'.join(sections)
    path.write_text(
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n<style>{STYLE}</style></head>\n'
        f'<body>\n<h1>{html.escape(title)}</h1>\n<p class="lead">{html.escape(lead)}</p>\n'
        f'{body}\n</body>\n</html>\n',
        encoding='utf-8',
    )


def _cell(tag: str, text: str, number: bool) -> str:
    return f'<{tag} class="number">{text}</{tag}>' if number else f'<{tag}>{text}</{tag}>'


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f'{value:.3g}' if abs(value) < 1000 else f'{value:,.0f}'
    if isinstance(value, int):
        return f'{value:,}'
    return html.escape(str(value))

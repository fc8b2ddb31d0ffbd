"""Builds a report's HTML page from its parts. The page is self-contained: no scripts, no other files, no addresses.

Every text that comes in is escaped here, and nowhere else.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import NewType

from pipelines.words import UNKNOWN, printable

Html = NewType("Html", str)

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 0 1rem 3rem; font: 1rem/1.5 system-ui, sans-serif;
       color: #1b1f24; background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1.5rem 0 0.5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.75rem; padding-top: 0.75rem; border-top: 1px solid #d0d7de; }
h3 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
p, ul { max-width: 46rem; margin: 0.5rem 0; }
ul { padding-left: 1.2rem; }
a, summary { color: #0969da; }
nav { margin-top: 1rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
figure { margin: 0; }
figcaption { font-size: 0.875rem; line-height: 1.4; color: #57606a; margin-top: 0.25rem; }
img { display: block; width: 100%; height: auto; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 0.75rem; margin: 1rem 0; }
.cards div { border: 1px solid #d0d7de; border-radius: 0.5rem; padding: 0.5rem 0.75rem; }
.cards div:first-child { background: #f0f6fc; border-color: #0072b2; }
.cards b { display: block; font-size: 1.6rem; line-height: 1.2; }
.cards span { font-size: 0.875rem; color: #57606a; }
.warning { border-left: 0.25rem solid #d55e00; background: #fdf3ec; padding: 0.5rem 0.75rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 2rem;
           align-items: start; margin: 1rem 0; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); gap: 1.25rem;
           align-items: start; }
.gallery img { border-radius: 0.25rem; }
.wide { overflow-x: auto; margin: 0.75rem 0; background: /* a shadow where there is more, covered at the ends */
        linear-gradient(to left, #fff 1rem, #fff0 2rem) 100% 0 / 3rem 100% local no-repeat,
        linear-gradient(to left, #0003, #0000) 100% 0 / 0.75rem 100% scroll no-repeat; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #d0d7de; text-align: right; white-space: nowrap; }
th.text, td.text { text-align: left; }
summary { cursor: pointer; padding: 0.25rem 0; }
@media (max-width: 40rem) {
  .cards { grid-template-columns: 1fr 1fr; }
  .cards div:first-child { grid-column: 1 / -1; }
  th, td { padding: 0.25rem 0.35rem; font-size: 0.8125rem; }
}
"""


def page(title: str, introduction: Sequence[Html], sections: Sequence[tuple[str, Sequence[Html]]]) -> str:
    """The whole page.

    Args:
        title: the page's title.
        introduction: what stands above the table of contents.
        sections: titles and contents; a section without content is left out.
    """
    sections = [(name, parts) for name, parts in sections if parts]
    links = "".join(f'<a href="#{i}">{_text(name)}</a>' for i, (name, _) in enumerate(sections))
    body = "".join(
        f'<section id="{i}"><h2>{_text(name)}</h2>{"".join(parts)}</section>\n'
        for i, (name, parts) in enumerate(sections)
    )
    # The policy makes browsers enforce that nothing is fetched and no script runs, whatever a class is called.
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{_text(title)}</h1>
{"".join(introduction)}
<nav>{links}</nav>
{body}</body>
</html>
"""


def paragraph(text: str) -> Html:
    """A paragraph."""
    return Html(f"<p>{_text(text)}</p>")


def warning(text: str) -> Html:
    """A paragraph that stands out."""
    return Html(f'<p class="warning">{_text(text)}</p>')


def heading(text: str) -> Html:
    """A heading inside a section."""
    return Html(f"<h3>{_text(text)}</h3>")


def bullets(items: Iterable[str]) -> Html:
    """A list."""
    return Html("<ul>" + "".join(f"<li>{_text(item)}</li>" for item in items) + "</ul>")


def cards(items: Iterable[tuple[str, str]]) -> Html:
    """The most important numbers, in large type: (number, what it is)."""
    inside = "".join(f"<div><b>{_text(number)}</b><span>{_text(name)}</span></div>" for number, name in items)
    return Html(f'<div class="cards">{inside}</div>')


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table with numbers aligned to the right; if it is wider than the page, it can be scrolled sideways."""
    numbers = [
        all(row[column][:1] in f"0123456789{UNKNOWN}" for row in rows) for column in range(len(header))
    ]

    def line(cells: Sequence[str], tag: str) -> str:
        opened = (f"<{tag}>" if number else f'<{tag} class="text">' for number in numbers)
        return "".join(f"{tag_}{_text(cell)}</{tag}>" for tag_, cell in zip(opened, cells, strict=True))

    head = line(header, "th")
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return Html(f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def folded(title: str, content: Html) -> Html:
    """Long content that opens on a click."""
    return Html(f"<details><summary>{_text(title)}</summary>{content}</details>")


def picture(content: bytes, kind: str, caption: str) -> Html:
    """An image that is stored in the page itself.

    Args:
        content: the bytes of the image file.
        kind: "png", "jpeg" or "svg+xml".
        caption: the text below the image, which screen readers read out in its place.
    """
    data = base64.b64encode(content).decode()
    text = _text(caption)
    # An SVG inside an <img> can't run scripts, and its ids can't clash with those of other SVGs.
    return Html(
        f'<figure><img src="data:image/{kind};base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>'
    )


def figures(items: Iterable[Html]) -> Html:
    """Plots side by side, as many as there is room for."""
    return Html(f'<div class="figures">{"".join(items)}</div>')


def gallery(items: Iterable[Html]) -> Html:
    """Pictures side by side, as many as there is room for."""
    return Html(f'<div class="gallery">{"".join(items)}</div>')


def _text(text: str) -> str:
    """Escape a text: no markup, and no characters that a page may not hold."""
    return html.escape(printable(text))

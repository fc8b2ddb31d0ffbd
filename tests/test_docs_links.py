"""README.md and docs/: every link leads somewhere, on GitHub and on the site; every page is in the site's menu."""

import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("**/*.md"))
PAGES = [ROOT / "README.md", *DOCS]
MENU = re.findall(
    r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2], re.MULTILINE
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_every_link_leads_somewhere(page):
    assert [problem for link in links(page) if (problem := broken(link, page))] == []


@each_page
def test_every_image_has_a_text(page):
    text = prose(page)
    assert re.findall(r"!\[\s*\]", text) == []
    assert "<img" not in text  # as Markdown, so that the line above sees it


def test_every_page_is_in_the_menu_once():
    assert sorted(MENU) == [str(page.relative_to(ROOT / "docs")) for page in DOCS]


def test_the_sites_first_page_has_the_commands_of_the_readme():
    readme, first = ((ROOT / name).read_text() for name in ("README.md", "docs/index.md"))
    commands = re.findall(r"^<!-- command: \w+ -->\n(```bash\n.*?\n```)$", readme, re.MULTILINE | re.DOTALL)
    assert len(commands) == 2
    assert [command for command in commands if command not in first] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](no.md)", "no.md: there is no such file"),
        ("[a](data.md#no)", "data.md#no: there is no such heading"),
        ("[a](#no)", "#no: there is no such heading"),
        ("![a](no.jpg)", "no.jpg: there is no such file"),
        ("[a](../README.md)", "../README.md: it is not part of the site"),
        ("[a](/data.md)", "/data.md: there is no such file"),
        ("[a](#one-two)", "#one-two: the heading is written so that GitHub and the site name it differently"),
        ("[a](data.md#getting-coco) [b](#b) [c](https://example.org/no.md) `[d](no.md)`", None),
        ("```\n[a](no.md)\n```", None),
    ],
)
def test_a_broken_link_is_found(text, problem, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "README.md").touch()
    (docs / "data.md").write_text("# Data\n\n## Getting COCO\n")
    page = docs / "page.md"
    page.write_text(f"## B\n\n## One & two\n\n{text}\n")
    problems = [broken(link, page) for link in links(page)]
    assert [found for found in problems if found] == ([problem] if problem else [])


def prose(page):
    """The text of a page without its code."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "`", text)


def links(page):
    """The targets of the links and images of a page that do not lead to other sites."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in targets if not re.match(r"https?:|mailto:", target)]


def broken(link, page):
    """What is wrong with a link on a page, or None."""
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return f"{link}: there is no such file"
    if page.name != "README.md" and page.parent not in target.parents:
        return f"{link}: it is not part of the site"
    if not anchor:
        return None
    on_github, on_site = anchors(target, github_anchor), anchors(target, site_anchor)
    if anchor in on_github and anchor in on_site:
        return None
    if anchor in on_github or anchor in on_site:
        return f"{link}: the heading is written so that GitHub and the site name it differently"
    return f"{link}: there is no such heading"


def anchors(page, name_of):
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {name_of(heading.replace("`", "")) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def github_anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def site_anchor(heading):
    """As Python-Markdown's `toc.slugify` makes it."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())

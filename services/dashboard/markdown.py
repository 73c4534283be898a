"""Markdown that came with a model as a part of a page. Whoever wrote it is a stranger: what is HTML in it stays text,
pictures are not loaded, and addresses that run something are no links."""

from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

HIGHEST = 3  # heading, on a page that has its own above
_reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "html_block", "html_inline"])


def rendered(text: str) -> Markup:
    """HTML that may stand in a page. Headings begin below those of the page, and leave no level out."""
    tokens = _without_empty_heads(_reader.parse(text))
    given: list[int] = []  # levels of the headings above, as they were written
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            if token.type == "heading_open":
                level = int(token.tag[1:])
                given = [*(one for one in given if one < level), level]
            token.tag = f"h{min(HIGHEST + len(given) - 1, 6)}"
    return Markup(_reader.renderer.render(tokens, _reader.options, {}))  # noqa: S704 - made here, without foreign HTML


def _without_empty_heads(tokens: Sequence[Token]) -> list[Token]:
    """Tables whose head says nothing, without it: readers aloud would stumble over it."""
    kept: list[Token] = []
    begin = 0
    for token in tokens:
        if token.type == "thead_open":
            begin = len(kept)
        kept.append(token)
        if token.type == "thead_close" and not any(one.content for one in kept[begin:]):
            del kept[begin:]
    return kept

"""Markdown as GitHub reads it."""

from markdown_it import MarkdownIt


def outside(markdown: str) -> str:
    """What is not code in a text for GitHub, which has no HTML, image or link either."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    parts = [part for token in tokens for part in (token, *(token.children or []))]
    assert not {part.type for part in parts} & {
        "html_block",
        "html_inline",
        "image",
        "link_open",
        "code_block",
        "fence",
    }
    return " ".join(part.content for part in parts if part.type == "text")

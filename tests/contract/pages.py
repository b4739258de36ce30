"""The pages of the manual, and the blocks of code in them."""

from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
}
"""The texts, by their paths in the project."""

_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: Its page.
        line: The line that it begins in.
        language: What it says it is; empty if it does not.
        text: What is in it.
        before: The block before it on its page.
    """

    page: str
    line: int
    language: str
    text: str
    before: "Block | None"

    def __str__(self):
        return f"{self.page}:{self.line}"


def _parsed():
    """Each page's tokens, those inside of lines too."""
    for page, text in PAGES.items():
        tokens = _MARKDOWN.parse(text)
        yield page, [each for token in tokens for each in (token, *(token.children or ()))]


def _blocks():
    for page, tokens in _parsed():
        before = None
        for token in tokens:
            if token.type in {"fence", "code_block"}:
                language = token.info.split(" ")[0]  # a directive's argument comes after it
                before = Block(page, token.map[0] + 1, language, token.content, before)
                yield before


BLOCKS = list(_blocks())
CODE = {
    page: [each.content for each in tokens if each.type == "code_inline"]
    for page, tokens in _parsed()
}
"""The code inside of lines, by page."""
LINKS = [
    (page, str(each.attrGet("href") or each.attrGet("src")))
    for page, tokens in _parsed()
    for each in tokens
    if each.type in {"link_open", "image"}
]
"""Where links and pictures lead, with their pages."""


def blocks(*languages):
    """The blocks in these languages."""
    return [each for each in BLOCKS if each.language in languages]

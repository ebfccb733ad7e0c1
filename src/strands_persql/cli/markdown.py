"""Markdown of messages in a terminal: nothing that was written is left out."""

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import Heading, Markdown
from rich.segment import Segment
from rich.text import Text

from strands_persql.cli.wording import printable

# Markup within the text is shown as text.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


class _Heading(Heading):
    """A heading at the left, where the text is."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text.copy()
        text.justify = "left"
        text.stylize("bold underline" if self.tag == "h1" else "bold")
        yield text


class _Message(Markdown):
    elements = {**Markdown.elements, "heading_open": _Heading}  # noqa: RUF012 - as rich has it


def markdown(text: str) -> RenderableType:
    """Return a text with its Markdown, lines broken where it breaks them."""
    shown = printable(text)
    message = _Message("", hyperlinks=False)
    message.markup, message.parsed = shown, _PARSER.parse(shown)
    _break_lines(message.parsed)
    return message if message.parsed else Text(shown)


def _break_lines(tokens: list[Token]) -> None:
    for token in tokens:
        if token.type == "softbreak":
            token.type = "hardbreak"
        _break_lines(token.children or [])


class Indented:
    """Something moved to the right, with single blank lines and none around it.

    Args:
        renderable: What.
        by: How far, in columns.
    """

    def __init__(self, renderable: RenderableType, by: int) -> None:
        """Take it."""
        self._renderable, self._by = renderable, by

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it line by line."""
        width = max(options.max_width - self._by, 10)
        lines = console.render_lines(self._renderable, options.update(width=width), pad=False)
        blanks, is_first = 0, True
        for line in map(_without_blanks, lines):
            if not line:
                blanks += 1
                continue
            if blanks and not is_first:
                yield Segment.line()
            blanks, is_first = 0, False
            yield Segment(" " * self._by)
            yield from line
            yield Segment.line()


def _without_blanks(line: list[Segment]) -> list[Segment]:
    line = list(line)
    while line and not line[-1].text.strip():
        line.pop()
    if line:
        last = line.pop()
        line.append(Segment(last.text.rstrip(), last.style))
    return line

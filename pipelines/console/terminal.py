"""The terminal. Whatever people read goes through this console, and no text in it can command it.

Names of images, labels, errors and keys of tables come from strangers. An escape sequence among
them would move the cursor, rename the window or hide lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

LOG_WIDTH = 160
"""Columns where the output is a file: names are not folded at the usual 80."""
# Control characters (rich lays out line breaks and tabs itself), marks that reverse the direction
# of text or separate lines, and halves of characters, which no encoding knows.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(text: str) -> str:
    """Text without characters that a terminal obeys."""
    return _UNSAFE.sub("�", text)


def one_line(text: str) -> str:
    """Clean text on one line: a name with a line break cannot pretend to be two messages."""
    return clean(re.sub(r"\r\n|[\n\t]", "�", text))


class Terminal(Console):
    """A rich console that cleans every piece of text when it is rendered."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Segments of a renderable; the console's own control codes stay as they are."""
        return _cleaned(super().render(renderable, options))


def _cleaned(segments: Iterable[Segment]) -> Iterator[Segment]:
    for segment in segments:
        if segment.control or not _UNSAFE.search(segment.text):
            yield segment
        else:
            yield Segment(clean(segment.text), segment.style)


def terminal(file: TextIO) -> Terminal:
    """The console on a stream: as wide as the terminal, or LOG_WIDTH for a file."""
    console = Terminal(file=file, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Terminal(file=file, highlight=False, markup=False, emoji=False, width=LOG_WIDTH)
    return console

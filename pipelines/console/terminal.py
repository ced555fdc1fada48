"""The console for all text output, which removes control characters from it.

Image names, labels, errors and table keys are untrusted. An escape sequence in them could move the
cursor, rename the window or hide lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

LOG_WIDTH = 160
"""Columns for output to a file; 80 columns would fold long names."""
# Control characters except line breaks and tabs, which rich handles; bidirectional controls and
# line separators; and lone surrogates, which cannot be encoded.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(text: str) -> str:
    """Text without control characters."""
    return _UNSAFE.sub("�", text)


def one_line(text: str) -> str:
    """Clean text on one line, so that a name with a line break cannot fake a second message."""
    return clean(re.sub(r"\r\n|[\n\t]", "�", text))


class Terminal(Console):
    """A rich console that cleans all text on rendering."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Segments of a renderable; the console's own control codes are kept."""
        return _cleaned(super().render(renderable, options))


def _cleaned(segments: Iterable[Segment]) -> Iterator[Segment]:
    for segment in segments:
        if segment.control or not _UNSAFE.search(segment.text):
            yield segment
        else:
            yield Segment(clean(segment.text), segment.style)


def terminal(file: TextIO) -> Terminal:
    """A console on a stream, as wide as the terminal, or LOG_WIDTH for a file."""
    console = Terminal(file=file, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Terminal(file=file, highlight=False, markup=False, emoji=False, width=LOG_WIDTH)
    return console

"""Globs, matched one folder at a time, so that a walk turns back where nothing can match."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

_MAGIC = re.compile(r"[*?\[]")
States = frozenset[int]
"""Positions in a pattern that a path may have reached; empty: it cannot match any more."""


def is_glob(uri: str) -> bool:
    """Whether uri has a wildcard in it."""
    return _MAGIC.search(uri) is not None


def split_glob(uri: str) -> tuple[str, Pattern]:
    """The folder before the first wildcard, and the pattern below that folder."""
    parts = uri.split("/")
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    return "/".join(parts[:first]) or "/", Pattern(tuple(parts[first:]))


@dataclass(frozen=True)
class Pattern:
    """A glob, split at "/". `*`, `?` and `[...]` match within one name, `**` any number of folders.
    A folder that matches takes everything below it along, as a folder named in full does; so the
    pattern of no parts matches every file."""

    parts: tuple[str, ...] = ()

    def begin(self) -> States:
        """Before the first name."""
        return self._with_skips({0})

    def step(self, states: States, name: str) -> States:
        """After one more folder or file name."""
        if self.accepts(states):
            return states
        reached = set()
        for state in states:
            if self.parts[state] == "**":
                reached.add(state)
            if fnmatchcase(name, self.parts[state]):
                reached.add(state + 1)
        return self._with_skips(reached)

    def accepts(self, states: States) -> bool:
        """Whether the path so far matches, and with it all below."""
        return len(self.parts) in states

    def matches(self, names: Iterable[str]) -> bool:
        """Whether a path of these names matches, or one of its folders does."""
        states = self.begin()
        for name in names:
            states = self.step(states, name)
        return self.accepts(states)

    @property
    def literal_start(self) -> str:
        """What every matching path begins with."""
        return _MAGIC.split(self.parts[0], maxsplit=1)[0] if self.parts else ""

    def _with_skips(self, states: set[int]) -> States:
        # `**` may stand for no folder at all, but a path ends with some name.
        for state in list(states):
            while state < len(self.parts) - 1 and self.parts[state] == "**":
                state += 1
                states.add(state)
        return frozenset(states)

"""An archive's manifest while it is being made: a thread lists, and each part is there to be worked
on as soon as it is whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from ganad.archive.manifest import Manifest, Part, is_manifest, open_manifest, write_manifest
from ganad.archive.unfinished import read_unfinished
from ganad.errors import Mismatch
from ganad.storage import files as storage
from pipelines.console.progress import counted, say

GRACE_S = 5.0
"""A listing that ends so soon after its first part is waited for: work in two rounds takes longer,
as the second starts its actors anew."""
_LOOK_EVERY_S = 0.5


class _Unwanted(BaseException):
    """Ends a listing from inside."""


class Arrival:
    """The parts of a manifest as they come, and the manifest itself when it is whole.

    A manifest that sources name is whole from the beginning. Otherwise one of these sources is
    written to keep_at, or the one there is refreshed: what it lists stays, and what has come since
    is added to it. out is what the user calls the folder that holds it.
    Raises Mismatch if keep_at holds the manifest of other sources.
    """

    def __init__(self, sources: Sequence[str], keep_at: str, out: str) -> None:
        self.parts: list[Part] = []
        """So far; further ones come behind these."""
        self.manifest: Manifest | None = None
        """None until the listing has ended."""
        self.before: Manifest | None = None
        """What there was before the listing began."""
        self._sources, self._keep_at = sources, keep_at
        self._listed = self._goes_on = False
        self._num_listed = 0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._unwanted = False
        self._news = threading.Condition()
        if len(sources) == 1 and is_manifest(sources[0]):
            self.manifest = open_manifest(sources[0])
            self.parts = list(self.manifest.parts)
            return
        self.before = open_manifest(keep_at) if is_manifest(keep_at) else None
        theirs = self.before or read_unfinished(keep_at)
        if theirs and list(theirs.sources) != [storage.absolute(source) for source in sources]:
            raise Mismatch(
                f"{out} holds other work (its source was {' '.join(theirs.sources)}): give a "
                f"fresh --out, or the source that it was begun with"
            )
        self._listed, self._goes_on = True, theirs is not None
        # A daemon: whoever stops the command does not wait for the listing.
        self._thread = threading.Thread(target=self._list, name="listing", daemon=True)
        self._thread.start()

    def __enter__(self) -> Arrival:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop a listing that is not wanted any more: another one may come after it."""
        self._unwanted = True
        if self._thread is not None:
            self._thread.join(GRACE_S)

    @property
    def num_images(self) -> int:
        """Images known so far."""
        return sum(part.num_rows for part in list(self.parts))

    def wait(self) -> None:
        """Wait for the first part, and a moment longer for the end. Raises what the listing
        raised."""
        self._wait(0)
        ends = time.monotonic() + GRACE_S
        while self.manifest is None and time.monotonic() < ends:
            self._wait(len(self.parts), ends)

    def whole(self) -> Manifest:
        """The manifest, when the listing has ended. Raises what the listing raised."""
        while self.manifest is None:
            self._wait(len(self.parts))
        return self.manifest

    def rounds(self) -> Iterator[list[Part]]:
        """Parts, each once and in their order: at every step all that have come since the last.
        Raises what the listing raised, once the parts that were handed out are done."""
        num = 0
        while True:
            self._wait(num)
            whole = self.manifest is not None
            if parts := self.parts[num:]:
                num += len(parts)
                yield parts
            elif whole:
                return

    def _wait(self, num: int, until: float | None = None) -> None:
        """Wait until there are more than num parts, or the listing has ended, or it is time."""

        def arrived() -> bool:
            return self.manifest is not None or len(self.parts) > num or self._error is not None

        with self._news:
            if not arrived():
                with counted("listing", "images") as found:
                    while not arrived() and (until is None or time.monotonic() < until):
                        self._news.wait(_LOOK_EVERY_S)
                        found(self._num_listed)
        if self._error is not None:
            raise self._error

    def _list(self) -> None:
        try:
            manifest = write_manifest(
                self._sources,
                self._keep_at,
                refresh=True,
                progress=self._count,
                on_part=self._add,
            )
        except BaseException as error:  # raised again where it is waited for
            with self._news:
                self._error = error
                self._news.notify_all()
            return
        with self._news:
            self.manifest = manifest
            self._news.notify_all()

    def _count(self, num: int) -> None:
        self._num_listed = num
        if self._unwanted:
            raise _Unwanted

    def _add(self, part: Part) -> None:
        if self._unwanted:
            raise _Unwanted
        with self._news:
            self.parts.append(part)
            self._news.notify_all()

    def tell(self) -> None:
        """Say what the listing found, when it has ended."""
        if self.manifest is None or not self._listed:
            return
        known = self.before.num_images if self.before else 0
        if self._goes_on:
            for note in self.manifest.notes:
                say(note)
        if self.manifest.num_images > known:
            new = "new " if known else ""
            say(f"indexed {self.manifest.num_images - known:,} {new}images")

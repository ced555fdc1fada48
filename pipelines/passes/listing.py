"""SOURCE as typed -> a manifest: one that exists, or one that is listed, perhaps in the background.

A listing of a billion files takes hours, so a thread lists and hands over each manifest part as
soon as it is written.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Iterator, Sequence

from ganad.archive.manifest import Manifest, Part, is_manifest, open_manifest, write_manifest
from ganad.archive.unfinished import Unfinished, read_unfinished
from ganad.errors import Mismatch
from ganad.storage import files as storage
from pipelines.console.progress import counted, say

GRACE_S = 5.0
"""Wait this long for a short listing to finish: a second round would restart all actors."""
_POLL_S = 0.5


def resolve(sources: Sequence[str], keep_at: str, out: str) -> Manifest:
    """The manifest that sources name, or a new one of these sources written to keep_at.

    A manifest at keep_at that was made from the same sources is used as it is: the second run of a
    command continues the first, even if the archive has grown meanwhile. Raises Mismatch if it is
    of other sources; out is what the user calls the folder that holds it.
    """
    if _names_a_manifest(sources):
        return open_manifest(sources[0])
    if is_manifest(keep_at):
        manifest = open_manifest(keep_at)
        _check_sources(manifest, sources, out)
        return manifest
    with counted("listing", "images") as show:
        manifest = write_manifest(sources, keep_at, progress=show)
    for note in manifest.notes:
        say(note)
    errors = f", {manifest.num_errors:,} of which cannot be read" if manifest.num_errors else ""
    say(f"indexed {manifest.num_images:,} images{errors}")
    return manifest


def _names_a_manifest(sources: Sequence[str]) -> bool:
    return len(sources) == 1 and is_manifest(sources[0])


def _check_sources(before: Manifest | Unfinished, sources: Sequence[str], out: str) -> None:
    if list(before.sources) != [storage.absolute(source) for source in sources]:
        raise Mismatch(
            f"{out} holds other work (its source was {' '.join(before.sources)}): give a fresh "
            f"--out, or the source that it was begun with"
        )


class _Cancelled(BaseException):
    """Ends a listing from inside."""


class BackgroundListing:
    """Lists an archive in a background thread; the manifest's parts can be used once written.

    If sources name a manifest, it is complete from the beginning. Otherwise a manifest of these
    sources is written to keep_at, or the one there is refreshed: what it lists stays, and new
    images are added to it. out is what the user calls the folder that holds it.
    Raises Mismatch if keep_at holds the manifest of other sources.
    """

    def __init__(self, sources: Sequence[str], keep_at: str, out: str) -> None:
        self.before: Manifest | None = None
        """The manifest before the listing began."""
        self.id = secrets.token_hex(8)
        """That of the manifest; a refresh keeps it."""
        self.uri = storage.absolute(keep_at)
        """Where the manifest is, or will be."""
        self._parts: list[Part] = []
        self._manifest: Manifest | None = None
        self._error: BaseException | None = None
        self._sources, self._keep_at = sources, keep_at
        self._num_listed = 0
        self._resumes = False
        self._cancelled = threading.Event()
        self._messages: queue.SimpleQueue[Part | Manifest | BaseException] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if _names_a_manifest(sources):
            self._manifest = open_manifest(sources[0])
            self._parts = list(self._manifest.parts)
            self.id, self.uri = self._manifest.id, self._manifest.uri
            return
        self.before = open_manifest(keep_at) if is_manifest(keep_at) else None
        previous = self.before or read_unfinished(keep_at)
        if previous is not None:
            _check_sources(previous, sources, out)
            self.id = previous.id or self.id
            self._resumes = True
        # A daemon, so that a command that is stopped does not wait for the listing.
        self._thread = threading.Thread(target=self._list, name="listing", daemon=True)
        self._thread.start()

    def __enter__(self) -> BackgroundListing:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop a listing that is no longer needed: another one may come after it."""
        self._cancelled.set()
        if self._thread is not None:
            self._thread.join(GRACE_S)

    @property
    def parts(self) -> list[Part]:
        """The parts written so far; further ones are added behind them."""
        self._receive()
        return self._parts

    @property
    def manifest(self) -> Manifest | None:
        """None until the listing has ended."""
        self._receive()
        return self._manifest

    @property
    def num_images(self) -> int:
        """Images in the parts so far."""
        return sum(part.num_rows for part in self.parts)

    def wait_for_start(self) -> None:
        """Wait for the first part, and GRACE_S longer for the end. Raises what the listing
        raised."""
        self._wait(0)
        ends = time.monotonic() + GRACE_S
        while self.manifest is None and time.monotonic() < ends:
            self._wait(len(self.parts), ends)

    def wait_for_end(self) -> Manifest:
        """The finished manifest. Raises what the listing raised."""
        while (manifest := self.manifest) is None:
            self._wait(len(self.parts))
        return manifest

    def rounds(self) -> Iterator[list[Part]]:
        """All parts once, in order; each round has those written since the last one. Raises what
        the listing raised, after the parts that were written before."""
        num = 0
        while True:
            self._wait(num)
            is_complete = self.manifest is not None
            if parts := self.parts[num:]:
                num += len(parts)
                yield parts
            elif is_complete:
                return

    def report(self) -> None:
        """Tell the user what the listing found, once it has ended."""
        if self.manifest is None or self._thread is None:
            return
        known = self.before.num_images if self.before else 0
        for note in self.manifest.notes:
            say(note)
        if self.manifest.num_images > known:
            new = "new " if known else ""
            errors = self.manifest.num_errors - (self.before.num_errors if self.before else 0)
            unread = f", {errors:,} of which cannot be read" if errors else ""
            say(f"indexed {self.manifest.num_images - known:,} {new}images{unread}")

    def _wait(self, num: int, until: float | None = None) -> None:
        """Wait for more than num parts, the end of the listing, or the time `until`."""

        def is_over() -> bool:
            return (
                self.manifest is not None
                or len(self.parts) > num
                or self._error is not None
                or (until is not None and time.monotonic() >= until)
            )

        if not is_over():
            with counted("listing", "images") as show:
                while not is_over():
                    self._receive(_POLL_S)
                    show(self._num_listed)
        if self._error is not None and len(self._parts) <= num:
            raise self._error

    def _receive(self, timeout_s: float = 0) -> None:
        """Take what the thread has sent; wait for a message at most timeout_s."""
        try:
            while True:
                message = self._messages.get(block=timeout_s > 0, timeout=timeout_s or None)
                timeout_s = 0
                if isinstance(message, Part):
                    self._parts.append(message)
                elif isinstance(message, Manifest):
                    self._manifest = message
                else:
                    self._error = message
        except queue.Empty:
            return

    # ---- In the thread ---------------------------------------------------------------------------

    def _list(self) -> None:
        try:
            manifest = write_manifest(
                self._sources,
                self._keep_at,
                refresh=True,
                progress=self._count,
                on_part=self._send,
                fresh_id=self.id,
            )
        except BaseException as error:  # raised again in _wait
            self._messages.put(error)
        else:
            self._messages.put(manifest)

    def _count(self, num: int) -> None:
        self._num_listed = num
        self._stop_if_cancelled()

    def _send(self, part: Part) -> None:
        self._stop_if_cancelled()
        self._messages.put(part)

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise _Cancelled

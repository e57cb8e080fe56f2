"""One writer of a folder in object storage, which has no locks: an object that its holder changes again and again.

Nobody's clock is trusted: who wants the folder looks whether the object changes for a while.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
import weakref
from typing import Any, Final

from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder

NAME: Final = "writer.json"
RENEW: Final = 5.0  # seconds between two changes
PATIENCE: Final = 20.0  # seconds without a change after which its holder is dead


class Lease:
    """Held until `release`, or until nothing refers to it. Raises UserError where another holds it."""

    def __init__(self, folder: Folder) -> None:
        # Not the caller's own: a lease must not keep alive what holds it.
        self._folder = Folder(folder.url)
        self.id = uuid.uuid4().hex
        self._count = 0
        self._over = threading.Event()
        if not self._folder.put_over(NAME, self._content(), None):
            self._take_over()
        given = weakref.ref(self), self._over
        threading.Thread(target=_renew, args=given, name=self.id, daemon=True).start()

    def release(self) -> None:
        """Let others write."""
        self._over.set()
        with contextlib.suppress(Exception):  # who comes next waits whether it changes
            if self._mine(_read(self._folder)):
                self._folder.remove(NAME)

    def renew(self) -> None:
        """Show that the holder lives, unless another has taken the folder over, and may be done with it."""
        if self._mine(_read(self._folder)):
            self._count += 1
            self._folder.put(NAME, self._content())
        else:
            self._over.set()

    def _content(self) -> bytes:
        return json.dumps(
            {"id": self.id, "count": self._count, "host": socket.gethostname(), "pid": os.getpid()}
        ).encode()

    def _mine(self, found: dict[str, Any] | None) -> bool:
        return found is not None and found.get("id") == self.id

    def _take_over(self) -> None:
        """Wait whether the holder shows that it lives; then write, and wait whether somebody else did the same."""
        before, begun = _read(self._folder), time.monotonic()
        while time.monotonic() - begun < PATIENCE:
            time.sleep(RENEW / 2)
            if (now := _read(self._folder)) is None:
                break  # its holder has let it go
            if now != before:
                raise UserError(
                    f"another macco-prep is writing to {self._folder.url} ({now.get('host')}, process "
                    f"{now.get('pid')}): wait for it, or choose another --out"
                )
        self._folder.put(NAME, self._content())
        time.sleep(RENEW)
        if not self._mine(_read(self._folder)):
            raise UserError(f"another macco-prep is beginning to write to {self._folder.url}: wait for it")


def check(folder: Folder, holder: str) -> None:
    """Raise UserError unless the lease of that id holds the folder: one request.

    It may have been lost while its process, or a worker of it, stood still. A record that is put after it was asked
    is put on condition that nobody else has put one meanwhile (`Shards.commit`).
    """
    found = _read(folder)
    if found is None or found.get("id") != holder:
        raise UserError(f"another macco-prep writes to {folder.url} by now; what is committed is safe")


def _read(folder: Folder) -> dict[str, Any] | None:
    try:
        found = json.loads(folder.read(NAME))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _renew(lease: "weakref.ref[Lease]", over: threading.Event) -> None:
    while not over.wait(RENEW):
        held = lease()
        if held is None:
            return
        with contextlib.suppress(Exception):  # the next time, perhaps: libraries have errors of their own
            held.renew()
        del held

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
        self._id = uuid.uuid4().hex
        self._count = 0
        self._over = threading.Event()
        self.lost = False
        if not self._create():
            self._take_over()
        threading.Thread(target=_renew, args=(weakref.ref(self), self._over), daemon=True).start()

    def check(self) -> None:
        """Raise UserError where another process has taken the folder over, while this one stood still."""
        if self.lost:
            raise UserError(
                f"another macco-prep writes to {self._folder.url} by now; what is committed is safe"
            )

    def release(self) -> None:
        """Let others write."""
        self._over.set()
        if not self.lost and self._mine(self._read()):
            self._folder.remove(NAME)

    def renew(self) -> None:
        """Show that the holder lives."""
        found = self._read()
        if found is not None and not self._mine(found):
            self.lost = True
            self._over.set()
        else:
            self._count += 1
            self._folder.put(NAME, self._content())

    def _content(self) -> bytes:
        return json.dumps(
            {"id": self._id, "count": self._count, "host": socket.gethostname(), "pid": os.getpid()}
        ).encode()

    def _create(self) -> bool:
        try:
            self._folder.fs.pipe_file(self._folder.path(NAME), self._content(), mode="create")
        except FileExistsError:
            return False
        return True

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._folder.read(NAME))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _mine(self, found: dict[str, Any] | None) -> bool:
        return found is not None and found.get("id") == self._id

    def _take_over(self) -> None:
        """Wait whether the holder shows that it lives; then write, and wait whether somebody else did the same."""
        before, begun = self._read(), time.monotonic()
        while time.monotonic() - begun < PATIENCE:
            time.sleep(RENEW / 2)
            if (now := self._read()) is None:
                break  # its holder has let it go
            if now != before:
                raise UserError(
                    f"another macco-prep is writing to {self._folder.url} ({now.get('host')}, process "
                    f"{now.get('pid')}): wait for it, or choose another --out"
                )
        self._folder.put(NAME, self._content())
        time.sleep(RENEW)
        if not self._mine(self._read()):
            raise UserError(f"another macco-prep is beginning to write to {self._folder.url}: wait for it")


def _renew(lease: "weakref.ref[Lease]", over: threading.Event) -> None:
    while not over.wait(RENEW):
        held = lease()
        if held is None:
            return
        with contextlib.suppress(OSError):  # the next time, perhaps
            held.renew()
        del held

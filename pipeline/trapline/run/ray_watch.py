"""Notice that Ray has ended during a run, in time to write the manifest.

Measured on Ray 2.60: after the raylet is killed the driver lives for another 15 s, after the GCS 60 s; then Ray's C++
code ends the process with exit code 1, and no `except` or `finally` of Python runs. So a thread watches their ports.
"""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import NoReturn

from trapline.run.periodic import Periodic

_LOOK_EVERY = 1.0  # seconds
_CONNECT = 2.0


def patience(shared: bool) -> dict[str, float]:
    """Return for how many seconds each port may be closed before its process counts as ended.

    Args:
        shared: whether Ray is a cluster. Its GCS may be restarted within the 60 s for which Ray waits; a raylet is
            never restarted, nor is a GCS that this process has started.
    """
    return {"raylet": 3.0, "GCS": 30.0 if shared else 3.0}


class RayWatch(Periodic):
    """Connect to Ray's ports every second, as long as the context lasts, and call a function when one stays closed.

    Args:
        ports: name of the process -> its host and port: "raylet" on this machine, and "GCS".
        on_loss: called once, with the name of the process.
        patience: seconds for which a port may be closed, by name.
    """

    def __init__(
        self,
        ports: Mapping[str, tuple[str, int]],
        on_loss: Callable[[str], None],
        patience: Mapping[str, float],
    ) -> None:
        super().__init__(self._look, _LOOK_EVERY)
        self._ports = ports
        self._on_loss = on_loss
        self._patience = patience
        self._seen = dict.fromkeys(ports, monotonic())
        self._lost = False

    def wait_while_closed(self) -> None:
        """Block while a port is closed, until it is open again or `on_loss` has been called."""
        while not (self._lost or all(map(_is_open, self._ports.values()))):
            sleep(_LOOK_EVERY)

    def _look(self) -> None:
        for name, address in self._ports.items():
            if _is_open(address):
                self._seen[name] = monotonic()
            elif not self._lost and monotonic() - self._seen[name] > self._patience[name]:
                self._lost = True
                self._on_loss(name)


def _is_open(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=_CONNECT):
            return True
    except TimeoutError:  # busy, and alive
        return True
    except OSError:
        return False


def exit_now(reason: str) -> NoReturn:
    """End this process with one line and exit code 2, before Ray ends it with exit code 1 and no message."""
    if sys.stdout.isatty():
        print("\x1b[?25h")  # a progress bar hides the cursor
    print(f"trapline: {reason}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)

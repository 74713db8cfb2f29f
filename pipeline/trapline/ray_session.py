"""The Ray that this process works with: the cluster that RAY_ADDRESS names, or one of its own on this machine."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex
from threading import current_thread, main_thread
from typing import Any

from trapline.cpu_count import usable_cpus
from trapline.errors import ClusterError, in_one_line

# Lines of Ray's C++ code below this level stay out of our standard error, such as "Actor ... has constructor arguments
# in the object store": they would tear the progress bar, and stand as plain text among the lines of --log json.
_CPP_LOG_LEVEL = ("RAY_BACKEND_LOG_LEVEL", "fatal")
# A checkout's entry points name the package's folder here: on the nodes of a cluster it may be missing, or older.
SOURCE_VARIABLE = "TRAPLINE_SOURCE"


def on_shared_cluster() -> bool:
    """Return whether RAY_ADDRESS names a cluster, as `ray job submit` sets it."""
    return bool(os.environ.get("RAY_ADDRESS"))


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine.

    Raises:
        ClusterError: the cluster does not answer, or Ray does not start.
    """
    import ray

    if ray.is_initialized():
        return
    # What is wrong comes back as rows, failures and exceptions; Ray's own messages are not for the reader of our log.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if on_shared_cluster():
            _join()
        else:
            _start()
    finally:
        # Ray has put a handler of its own there, which prints a stack and aborts.
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)


def _join() -> None:
    # The driver alone: the cluster's own processes have their own environment.
    os.environ.setdefault(*_CPP_LOG_LEVEL)
    address = os.environ["RAY_ADDRESS"]
    options: dict[str, Any] = {}
    if source := os.environ.get(SOURCE_VARIABLE):
        options["runtime_env"] = {"py_modules": [source]}
    _init(f"RAY_ADDRESS={address}: cannot join the cluster", "check that it is up and reachable from here", **options)


def _start() -> None:
    os.environ.setdefault(*_CPP_LOG_LEVEL)
    # A token of its own, known to the processes of this run alone: by itself Ray would write one to ~/.ray, and the
    # next `ray start --head` of this user would ask for it.
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", token_hex(32))
    # Two at least: a decode task and an actor must run at the same time, also on a single core.
    _init(
        "Ray does not start on this machine",
        "the machine may be too busy, or /dev/shm or /tmp/ray full; run the same command again",
        address="local", num_cpus=max(2, usable_cpus()), include_dashboard=False,
    )  # fmt: skip


def _init(problem: str, remedy: str, **options: Any) -> None:
    """Call `ray.init`; a second time where it fails, as it does on a machine that is busy for half a minute."""
    import ray

    for attempt in (1, 2):
        try:
            with _silent_stderr():
                ray.init(logging_level=logging.CRITICAL, log_to_driver=False, **options)
        # Ray has no class of its own for it: RuntimeError, ConnectionError, ValueError, TimeoutError, Exception …
        except Exception as error:
            ray.shutdown()
            if attempt == 2:
                raise ClusterError(f"{problem} ({in_one_line(error)}); {remedy}") from error
        else:
            return


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discard the process's standard error: Ray's C++ code reports there that it has read RAY_BACKEND_LOG_LEVEL."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

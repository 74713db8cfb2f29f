"""The Ray that this process works with: the cluster that RAY_ADDRESS names, or one of its own on this machine."""

import logging
import os
import signal
from threading import current_thread, main_thread
from typing import Any

# A checkout's entry points name the package's folder here: on the nodes of a cluster it may be missing, or older.
SOURCE_VARIABLE = "TRAPLINE_SOURCE"


def on_shared_cluster() -> bool:
    """Return whether RAY_ADDRESS names a cluster, as `ray job submit` sets it."""
    return "RAY_ADDRESS" in os.environ


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine."""
    import ray

    if ray.is_initialized():
        return
    # What is wrong comes back as rows, failures and exceptions; Ray's own messages are not for the reader of our log.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if on_shared_cluster():
        if source := os.environ.get(SOURCE_VARIABLE):
            quiet["runtime_env"] = {"py_modules": [source]}
        ray.init(**quiet)
    else:
        # Two at least: a decode task and an actor must run at the same time, also on a single core.
        ray.init("local", num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, **quiet)
    # Ray has put a handler of its own there, which prints a stack and aborts.
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)

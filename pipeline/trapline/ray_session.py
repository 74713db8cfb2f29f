"""The Ray that this process works with: the cluster that RAY_ADDRESS names, or one of its own on this machine.

A command on one machine starts Ray in the background while it imports torch and loads the model, on Linux without the
processes that no run uses, and ends without waiting for Ray's processes to end one after another: some eight of its
seconds (`start_in_background`, `ray_processes`, `leave`). For a program that calls `trapline.classify`, Ray starts and
ends as Ray does by itself.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from secrets import token_hex
from threading import Event, Lock, Thread, current_thread, main_thread
from typing import Any, NoReturn

from trapline.cpu_count import usable_cpus
from trapline.errors import ClusterError, in_one_line
from trapline.ray_processes import few_services, one_at_a_time

# Keeps log lines of Ray's C++ code below this level out of standard error, such as "Actor ... has constructor arguments
# in the object store": they would break the progress bar, and be plain text among the lines of --log json.
_CPP_LOG_LEVEL = ("RAY_BACKEND_LOG_LEVEL", "fatal")
# A checkout's entry points name the package's folder here: on the nodes of a cluster it may be missing, or older.
SOURCE_VARIABLE = "TRAPLINE_SOURCE"


class _Background:
    """A thread that starts Ray."""

    def __init__(self) -> None:
        self._started = Event()
        self._error: BaseException | None = None
        self._silence = _silent_stderr()
        # In this thread: in the other one it could come between a line that this one prints and its newline.
        self._silence.__enter__()
        self._on_sigterm = signal.getsignal(signal.SIGTERM)
        Thread(target=self._run, name="ray start", daemon=True).start()

    def wait(self) -> None:
        """Block until Ray has started; raise what `connect` raises."""
        self._started.wait()
        _handle_sigterm(self._on_sigterm)
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            _connect()
        except BaseException as error:  # noqa: BLE001 - `wait` raises it
            self._error = error
        finally:
            self._silence.__exit__(None, None, None)
            self._started.set()
        # Linux kills a process that was started to die with its parent when the parent's thread ends that started it.
        Event().wait()


# The thread that starts Ray, where there is one; and the folder of the Ray that this process has started.
_background: _Background | None = None
_session_folder: Path | None = None
# Held while a process of Ray's starts, and for good once this one ends.
_starting = Lock()
# Whether this process runs one command and ends: Ray may then be started before it is known to be needed.
_is_command = False


def on_shared_cluster() -> bool:
    """Return whether RAY_ADDRESS names a cluster, as `ray job submit` sets it."""
    return bool(os.environ.get("RAY_ADDRESS"))


def has_few_processes() -> bool:
    """Return whether Ray has only the processes that a run on one machine needs: in a command, which is all its use."""
    return _is_command and not on_shared_cluster() and sys.platform == "linux"


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine.

    Raises:
        ClusterError: the cluster does not answer, or Ray does not start.
    """
    if _background:
        _background.wait()
        _quieten()  # ray.data, where it was imported meanwhile, has set up its log since
    else:
        with _silent_stderr():
            _connect()


def run_command(command: Callable[[], int]) -> NoReturn:
    """Run a command that is all that this process does, and end the process with the exit code that it returns."""
    global _is_command
    _is_command = True
    leave(command())


def start_in_background() -> None:
    """Begin to start Ray on this machine, which the next `connect` waits for; only in the process of a command.

    The run may then turn out to have nothing to do, or to fail: nothing waits for Ray in that case.
    """
    global _background
    if not _is_command or _background or on_shared_cluster():
        return
    import ray  # noqa: F401 - not in two threads at once

    _background = _Background()


def leave(code: int) -> NoReturn:
    """End this process with this exit code.

    Where the process has started Ray, at once, and with Ray's processes: `ray.shutdown` ends them one after another and
    gives each a second, 3 s in all. What Ray has spilled to disk is deleted by `ray.shutdown` alone.
    """
    own = _background or _session_folder
    spilled = _session_folder and any(_session_folder.glob("ray_spilled_objects*/*"))
    if not own or spilled or not sys.platform.startswith("linux"):
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    _starting.acquire()  # a process would outlive this one if it is not yet listed, and not yet set to die with it
    for pid in _descendants():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(code)


def _descendants() -> list[int]:
    """Return the ids of the processes that this one has started, and of those that they have.

    Linux ends most of Ray's with this one. Its agent alone lives for a minute longer and keeps the port that each agent
    wants: the next command's Ray would ask for it again and again for 3.4 s before it starts.
    """
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = stat.read_text(errors="replace").rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _connect() -> None:
    import ray

    if ray.is_initialized():
        return
    _quieten()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if on_shared_cluster():
            _join()
        else:
            _start()
    finally:
        _handle_sigterm(on_sigterm)


def _quieten() -> None:
    """Silence Ray's log: what goes wrong comes back as rows, failures and exceptions."""
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _handle_sigterm(handler: Any) -> None:
    """Restore the handler of SIGTERM: Ray's own prints a stack and aborts. Only the main thread can set handlers."""
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, handler)


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
    # A token that only the processes of this run know. Without it Ray writes one to ~/.ray, and the next
    # `ray start --head` of this user asks for it.
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", token_hex(32))
    # At least two: a decode task and an actor must run at the same time, even on a single core.
    _init(
        "Ray does not start on this machine",
        "the machine may be too busy, or /dev/shm or /tmp/ray full; run the same command again",
        address="local", num_cpus=max(2, usable_cpus()), include_dashboard=False,
    )  # fmt: skip


def _init(problem: str, remedy: str, **options: Any) -> None:
    """Call `ray.init`, and once more if it fails, as it does on a machine that is busy for half a minute.

    A command has Ray start few processes, but not in the second attempt: if that is what fails, it costs half a minute.
    """
    global _session_folder
    import ray

    own = options.get("address") == "local"
    for attempt in (1, 2):
        few = few_services() if own and attempt == 1 and has_few_processes() else nullcontext()
        try:
            with one_at_a_time(_starting), few:
                session: Any = ray.init(logging_level=logging.CRITICAL, log_to_driver=False, **options)
            if own:
                _session_folder = Path(session.address_info["session_dir"])
        # Ray raises RuntimeError, ConnectionError, ValueError, TimeoutError, Exception … here, without a common class.
        except Exception as error:
            ray.shutdown()
            if attempt == 2:
                raise ClusterError(f"{problem} ({in_one_line(error)}); {remedy}") from error
        else:
            return


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discard what C++ code writes to standard error: Ray's reports there that it has read RAY_BACKEND_LOG_LEVEL.

    What Python code of other threads prints to standard error meanwhile arrives.
    """
    sys.stderr.flush()
    kept = os.dup(2)  # never closed: logging handlers that other threads create meanwhile keep the stream
    nowhere = os.open(os.devnull, os.O_WRONLY)
    before = sys.stderr
    sys.stderr = ours = os.fdopen(kept, "w", 1, encoding=before.encoding, errors=before.errors, closefd=False)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        if sys.stderr is ours:
            sys.stderr = before
        os.close(nowhere)

"""Call a function for many items, such as the files of an archive: on this machine, or on the cluster of RAY_ADDRESS.

Ray only moves the work: if the worker of an item dies, the caller supplies the answer.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from trapline.errors import in_one_line
from trapline.ray_session import connect, on_shared_cluster

Thing = TypeVar("Thing")
Answer = TypeVar("Answer")

# After the first: a node that goes costs no file, and a file that kills its workers costs a few of them.
_RETRIES = 3
# Waiting or under way on a cluster: as many as it may grow to have cores, and no million in the driver's memory.
_AT_ONCE = 1000
# To look at so many takes Ray milliseconds: not for each one that comes, but for those of a tenth of a second.
_PAUSE = 0.1


def each(
    function: Callable[[Thing], Answer],
    things: Sequence[Thing],
    threads: int,
    lost: Callable[[Thing, str], Answer],
) -> Iterator[Answer]:
    """Yield what a function returns for each thing; on a cluster in the order in which answers come.

    Args:
        function: can be pickled, and does no harm when it is called again for the same.
        things: the arguments of the calls, one each.
        threads: that call it on this machine; a single one is the caller's own.
        lost: supplies the answer for a thing whose workers died each time; receives the thing and the reason.

    Raises:
        Exception: what `function` raises; the rest is left. What a cluster has under way ends with this process.
    """
    if on_shared_cluster():
        yield from _on_cluster(function, things, lost)
    elif threads == 1:
        yield from map(function, things)
    else:
        pool = ThreadPoolExecutor(threads)
        try:
            yield from pool.map(function, things)
        finally:
            pool.shutdown(cancel_futures=True)


def _on_cluster(
    function: Callable[[Thing], Answer], things: Sequence[Thing], lost: Callable[[Thing, str], Answer]
) -> Iterator[Answer]:
    import ray

    connect()
    # Once for all, as a thing of its own: a head is some MB.
    shared = ray.put(function)
    call: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(_call)
    pending: dict[ray.ObjectRef[Answer], Thing] = {}
    left = iter(things)
    # A caller that stops iterating leaves running tasks to the end of this process. Cancelling them can abort it:
    # Ray 2.60 does not expect that a task completes at that moment ("Tried to complete task that was not pending").
    while True:
        for thing in left:
            pending[call.remote(shared, thing)] = thing
            if len(pending) >= _AT_ONCE:
                break
        if not pending:
            return
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=_PAUSE)
        for answer in ready:
            thing = pending.pop(answer)
            try:
                yield ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                yield lost(thing, in_one_line(error))


def _call(function: Callable[[Thing], Answer], thing: Thing) -> Answer:
    return function(thing)

"""Trapline: shards become records, records become tensors, tensors become predictions, predictions become Parquet.

To read it, begin with the run and follow an image; each room says in its `__init__.py` what it is for:

1. `cli/classify.py` and `config.py`: the options of a run.
2. `run/classify.py`: a run from plan (`run/prepare.py`) to manifest.
3. `sources/`: what a shard is, and its records; `storage/` below it opens any URL.
4. `decoding/` (and `detections/` for boxes): bytes become pixels and facts.
5. `model/`: pixels become probabilities and embeddings.
6. `results/`: rows, Parquet files, and the ledger that says which shards are done.
7. `monitoring/`: what watches a run. `analysis/`: what people do with results.

The names below are the Python API (docs/api.md). They load what they need when they are used: importing `trapline`
loads neither torch nor Ray.
"""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trapline.model.classifier import Classifier
    from trapline.run.manifest import Manifest
    from trapline.run.observer import RunObserver

__all__ = ["Classifier", "Manifest", "classify"]
__version__ = "0.1.0"

_LAZY = {"Classifier": "trapline.model.classifier", "Manifest": "trapline.run.manifest"}


def classify(
    *,
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]],
    output: str | PathLike[str],
    model: str | PathLike[str],
    observer: "RunObserver | None" = None,
    **options: Any,
) -> "Manifest":
    """Classify an archive as `trapline classify` does, and return the manifest of the run.

    Ray starts in this process, or joins the cluster that RAY_ADDRESS names, and stays until `ray.shutdown()`.

    If a process of Ray's dies during the run, the manifest is closed as "aborted" and `observer.note` is called with
    the reason. Soon after, Ray's own C++ code ends this process with exit code 1, and no `except` or `finally` runs:
    after about 15 s where it was the raylet, 60 s where it was the GCS (Ray 2.60). Trapline does not end it sooner,
    as the command does, so save what must survive when that note comes.

    Args:
        inputs: archives, folders, patterns or @FILE lists; paths or URLs.
        output: folder of the results; path or URL.
        model: path, URL or hub name of a checkpoint.
        observer: receives progress and notes during the run; default: nothing does.
        options: any other option of `trapline classify`, such as `top_k=1` (docs/cli.md); tuples for those that repeat.

    Raises:
        UsageError: an option does not exist or has an impossible value.
        FatalError: the run cannot go on; the message says what to do.
    """
    from pydantic import ValidationError

    from trapline.config import RunConfig
    from trapline.errors import UsageError
    from trapline.monitoring.monitored_run import classify_monitored

    given = [inputs] if isinstance(inputs, str | PathLike) else inputs
    try:
        config = RunConfig(inputs=tuple(map(fspath, given)), output=fspath(output), model=fspath(model), **options)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}={first['input']!r}: {first['msg']}") from error
    observer = observer or _NoObserver()
    return classify_monitored(config, observer, end_process=observer.note)


class _NoObserver:
    def __call__(self, progress: object) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'trapline' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""`trapline classify` on nodes that only claim a GPU: predictors take it, and compute on cores."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from cyclopts import App, Parameter

from trapline.cli.classify import run_config
from trapline.cli.run_job import run
from trapline.config import Options, RunConfig
from trapline.model.checkpoint import Model
from trapline.run.job import Job
from trapline.run.ray_stream import WorkerClasses
from trapline.run.workers import LostDevices, PredictorActor


class OnCores(PredictorActor):
    def __init__(self, job: Job, load: Callable[[], Model], lost: LostDevices | None = None) -> None:
        super().__init__(replace(job, device="cpu"), load, lost)


app = App(suppress_keyboard_interrupt=False, result_action="return_value")


@app.default
def classify(archive: str, output: str, *, options: Annotated[Options, Parameter(name="*")]) -> int:
    config = RunConfig(inputs=(archive,), output=output, **options.model_dump())
    return run_config(config, WorkerClasses(predictor=OnCores))


if __name__ == "__main__":
    sys.exit(run(app, sys.argv[1:]))

"""`trapline classify` on nodes that only claim a GPU: predictors take it, and compute on cores."""

import sys
from collections.abc import Callable
from dataclasses import replace

from trapline.cli import classify
from trapline.model.checkpoint import Model
from trapline.run import classify as flow
from trapline.run.job import Job
from trapline.run.workers import PredictorActor


class OnCores(PredictorActor):
    def __init__(self, job: Job, model: Callable[[], Model]) -> None:
        super().__init__(replace(job, device="cpu"), model)


if __name__ == "__main__":
    flow.PredictorActor = OnCores
    sys.exit(classify.main(sys.argv[1:]))

"""Whole runs in this process, on the Ray of the session."""

from pathlib import Path
from typing import Any

import duckdb

from tests.support.progress import Silent
from trapline.config import RunConfig
from trapline.monitoring.monitored_run import classify_monitored
from trapline.run.manifest import Manifest


class Run:
    """An archive, an output and a model; each call is a night."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.archive, self.output, self.model = folder / "archive", folder / "output", model

    def __call__(self, **options: Any) -> Manifest:
        return classify_monitored(self.config(**options), Silent())

    def config(self, **options: Any) -> RunConfig:
        values = {"inputs": (str(self.archive),), "output": str(self.output), "model": str(self.model)}
        return RunConfig(**{"precision": "fp32", **values, **options})

    def rows(self, query: str = "*") -> list[tuple[Any, ...]]:
        glob = f"{self.output}/**/*.parquet"
        return duckdb.sql(f"select {query} from read_parquet('{glob}', hive_partitioning = true)").fetchall()

    def files(self) -> dict[str, int]:
        """Result files below OUTPUT and when they were written."""
        return {str(path.relative_to(self.output)): path.stat().st_mtime_ns for path in self.output.rglob("*.parquet")}

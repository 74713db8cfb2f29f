import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.support.progress import MARK, chunk, failure, footer, run_progress
from trapline.run.manifest import latest
from trapline.run.worker_time import WorkerCounts


class TestTheManifest:
    def test_is_read_back_as_it_was_written(self, tmp_path: Path) -> None:
        run = run_progress(done=1, left=1, features=("stage4",))
        run.workers.set_workers(WorkerCounts(1, 1))
        run.record_chunk(chunk(run.plan.todo[0], read=0.25, decode=1, predict=0.5))
        run.commit(footer(run.plan.todo[0], uri="s3://b/Küste.tar", broken="cut"))
        run.fail(failure(run.plan.todo[1]))
        result = run.manifest("incomplete")
        url = result.write(str(tmp_path))
        assert Path(url) == tmp_path / "_trapline" / "runs" / f"{result.run_id}.json"
        assert json.loads(Path(url).read_text()) == json.loads(json.dumps(asdict(result)))
        assert "Küste" in Path(url).read_text()
        again = replace(result, status="complete")
        assert again.write(str(tmp_path)) == url
        assert json.loads(Path(url).read_text())["status"] == "complete"

    def test_says_how_and_with_what_the_rows_were_computed(self) -> None:
        result = run_progress(size=64).manifest("planned")
        assert result.fingerprint == {"digest": MARK.digest, "weights_sha256": "ab", "top_k": 5}
        assert result.config["size"] == 64
        assert {"python", "trapline", "torch", "torchvision", "pillow", "pyarrow", "ray"} == set(result.versions)

    def test_shows_no_secrets_of_urls(self) -> None:
        signed = "https://someone:pa55@host/model.pt?signature=abc"
        options = {"model": signed, "inputs": (signed, "s3://b/a+b?.tar"), "notify": f'curl "{signed}"'}
        result = run_progress(**options).manifest("planned")
        shown = "https://host/model.pt?…"
        assert [result.config[name] for name in options] == [shown, [shown, "s3://b/a+b?.tar"], f'curl "{shown}"']
        assert not any(secret in json.dumps(asdict(result)) for secret in ("someone", "pa55", "signature"))

    def test_stays_as_it_is_when_the_run_goes_on(self) -> None:
        run = run_progress()
        result = run.manifest("running")
        before = json.dumps(asdict(result))
        run.commit(footer(run.plan.todo[0], broken="cut"))
        run.fail(failure(run.plan.todo[1]))
        assert json.dumps(asdict(result)) == before
        assert run.manifest("running").run_id == result.run_id

    @pytest.mark.parametrize("kind", ["local", "s3"])
    def test_of_the_last_run_that_worked_anything_off_is_found(self, kind: str, request: pytest.FixtureRequest) -> None:
        output = (
            f"{request.getfixturevalue('bucket')}/out" if kind == "s3" else str(request.getfixturevalue("tmp_path"))
        )
        assert latest(output) is None
        for name, images in (("b", 10), ("a", 20), ("c", 0)):
            run = run_progress()
            run.workers.set_workers(WorkerCounts(1, 1))
            if images:
                run.record_chunk(chunk(run.plan.todo[0], ok=images, decode=3, predict=2))
            replace(run.manifest("complete"), run_id=name).write(output)
        found = latest(output)
        assert found is not None
        assert (found["run_id"], found["decoders_per_predictor"]) == ("b", 1.5)

    def test_of_two_runs_in_the_same_second_are_two(self) -> None:
        assert run_progress().plan.run_id != run_progress().plan.run_id

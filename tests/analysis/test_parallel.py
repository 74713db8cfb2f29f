import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from trapline.analysis import parallel
from trapline.errors import StorageError


@pytest.fixture(params=["here", "on a cluster"])
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "here":
        request.getfixturevalue("on_a_cluster")
    return str(request.param)


@pytest.fixture
def on_a_cluster(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")


def give_up(thing: object, why: str) -> str:
    raise AssertionError(f"{thing} was lost: {why}")


@pytest.mark.parametrize("threads", [1, 4])
def test_each_thing_is_answered_once(anywhere: str, threads: int) -> None:
    answers = list(parallel.each(lambda thing: (thing, thing**2, os.getpid()), range(50), threads, give_up))
    assert sorted(answer[:2] for answer in answers) == [(thing, thing**2) for thing in range(50)]
    assert ({pid for *_, pid in answers} == {os.getpid()}) == (anywhere == "here")


def test_more_things_than_the_driver_holds_at_once_are_all_answered(
    on_a_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_AT_ONCE", 3)
    assert sorted(parallel.each(lambda thing: thing, range(10), 1, give_up)) == list(range(10))


def test_of_nothing_comes_nothing(anywhere: str) -> None:
    assert list(parallel.each(lambda thing: thing, [], 4, give_up)) == []


@pytest.mark.parametrize("threads", [1, 4])
def test_what_the_function_raises_comes_as_it_was(anywhere: str, threads: int) -> None:
    def refuse(thing: int) -> int:
        if thing == 3:
            raise StorageError("s3://x: no")
        return thing

    with pytest.raises(StorageError) as caught:
        list(parallel.each(refuse, range(5), threads, give_up))
    assert (type(caught.value), str(caught.value)) == (StorageError, "s3://x: no")


def test_a_worker_that_dies_costs_no_thing(on_a_cluster: None, tmp_path: Path) -> None:
    def die_once(thing: int) -> int:
        try:
            (tmp_path / str(thing)).touch(exist_ok=False)
        except FileExistsError:
            return thing
        if thing % 4 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return thing

    assert sorted(parallel.each(die_once, range(8), 1, give_up)) == list(range(8))


def test_what_kills_its_workers_each_time_is_answered_for_and_the_others_are_done(
    on_a_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(thing: int) -> str:
        if thing == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{thing} done"

    monkeypatch.setattr(parallel, "_RETRIES", 1)
    answers = sorted(parallel.each(die, range(4), 1, lambda thing, why: f"{thing} lost: {why}"))
    assert [answer for answer in answers if "lost" not in answer] == ["0 done", "1 done", "3 done"]
    assert answers[2].startswith("2 lost: ")
    assert "\n" not in answers[2]


def test_whoever_stops_listening_stops_the_work(tmp_path: Path) -> None:
    def begin(thing: int) -> int:
        (tmp_path / str(thing)).touch()
        time.sleep(0.05)
        return thing

    answers = parallel.each(begin, range(100), 2, give_up)
    assert len(list(islice(answers, 2))) == 2
    answers.close()  # type: ignore[attr-defined]
    begun = len(list(tmp_path.iterdir()))
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == begun < 50


def test_without_a_cluster_ray_need_not_be_there(tmp_path: Path) -> None:
    code = """
import pkgutil, sys
sys.modules["ray"] = None
import trapline.analysis
from importlib import import_module
for module in pkgutil.walk_packages(trapline.analysis.__path__, "trapline.analysis."):
    import_module(module.name)
from trapline.analysis import parallel
print(list(parallel.each(abs, [-1, 2], 4, None)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[1, 2]\n", 0), done.stderr

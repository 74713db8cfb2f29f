import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from trapline.config import RunConfig, parse_deadline, parse_since

NOW = datetime(2026, 11, 24, 21, 30, tzinfo=UTC)  # half past ten in Berlin


def config(**options: Any) -> RunConfig:
    return RunConfig(**{"inputs": ("archive",), "output": "results", "model": "model.pt"} | options)


def test_model_inputs_and_output_are_all_that_must_be_given() -> None:
    required = {name for name, option in RunConfig.model_fields.items() if option.is_required()}
    assert required == {"model", "inputs", "output"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("inputs", ()),
        ("inputs", "archive"),  # a lone string would be taken for its letters
        ("output", ""),
        ("model", ""),
        ("size", 0),
        ("size", 16),
        ("size", 100),
        ("top_k", 0),
        ("top_k", 101),
        ("probabilities", "half"),
        ("embedding", "bfloat16"),
        ("features", ("stage5",)),
        ("batch_size", 0),
        ("batch_size", 4097),
        ("device", "tpu"),
        ("precision", "fp16"),
        ("decode_workers", 0),
        ("predict_workers", 0),
        ("gpus_per_actor", 0),
        ("gpus_per_actor", 1.5),
        ("limit", 0),
        ("since", "yesterday"),
        ("where", ("site",)),
        ("where", ("site=",)),
        ("where", ("=12",)),
        ("part", "3"),
        ("part", "0/8"),
        ("part", "9/8"),
        ("part", "-1/8"),
        ("part", "3/8/2"),
        ("stop_at", "noon"),
        ("notify", ""),
        ("keep_runs", 0),
        ("max_failed_fraction", -0.1),
        ("max_failed_fraction", 1.1),
        ("max_failed_fraction", math.nan),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_the_name_of_its_option(option: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        config(**{option: value})
    assert {error["loc"][0] for error in refusal.value.errors()} == {option}


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"topk\n.*not permitted"):
        config(topk=3)


def test_features_are_in_the_order_of_the_network_each_once() -> None:
    assert config(features=("stage4", "stage1", "stage4")).features == ("stage1", "stage4")


def test_options_stay_as_they_are() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().top_k = 3  # type: ignore[misc]


def test_every_option_is_described() -> None:
    assert [name for name, option in RunConfig.model_fields.items() if not option.description] == []


def test_a_run_can_be_repeated_from_the_options_in_its_manifest() -> None:
    original = config(features=("stage4",), size=256, max_failed_fraction=0.5, where=("site=12",), stop_at="06:00")
    assert RunConfig(**json.loads(json.dumps(original.model_dump(mode="json")))) == original


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", "2026-11-24T20:00Z"),
        ("36h", "2026-11-23T09:30Z"),
        ("7d", "2026-11-17T21:30Z"),
        ("2w", "2026-11-10T21:30Z"),
        ("2026-11-01", "2026-10-31T23:00Z"),  # midnight, there
        ("2026-07-01T06:00", "2026-07-01T04:00Z"),  # in summer
        ("2026-11-01T06:00Z", "2026-11-01T06:00Z"),
        ("2026-11-01 06:00:30+05:30", "2026-11-01T00:30:30Z"),
    ],
)
def test_the_start_of_a_period(text: str, moment: str) -> None:
    assert parse_since(text, NOW) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("06:00", "2026-11-25T05:00Z"),
        ("6:00", "2026-11-25T05:00Z"),
        ("22:31", "2026-11-24T21:31Z"),
        ("22:30", "2026-11-25T21:30Z"),  # now is over
        ("00:00", "2026-11-24T23:00Z"),
        ("2026-11-25T06:00", "2026-11-25T05:00Z"),
        ("2026-11-25T06:00-08:00", "2026-11-25T14:00Z"),
        ("2026-11-01T06:00", "2026-11-01T05:00Z"),  # over, which is for the caller to mind
    ],
)
def test_a_deadline(text: str, moment: str) -> None:
    assert parse_deadline(text, NOW) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    ("now", "moment"),
    [
        # At 3 on the last Sunday of October it is 2 again; at 2 on that of March, 3.
        ("2026-10-24T21:00Z", "2026-10-25T05:00Z"),
        ("2026-03-28T21:00Z", "2026-03-29T04:00Z"),
    ],
)
def test_six_in_the_morning_is_six_also_when_the_clocks_change(now: str, moment: str) -> None:
    assert parse_deadline("06:00", datetime.fromisoformat(now)) == datetime.fromisoformat(moment)


@pytest.mark.parametrize("text", ["", "7", "7y", "-7d", "yesterday", "999999w", "2026-13-01"])
def test_what_is_no_past_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a date"):
        parse_since(text, NOW)


@pytest.mark.parametrize("text", ["", "6", "24:00", "06:60", "1350", "7d", "tomorrow"])
def test_what_is_no_future_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a time"):
        parse_deadline(text, NOW)

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from trapline.config import RunConfig


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

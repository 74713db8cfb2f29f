import json
from pathlib import Path
from typing import Any

import frictionless
import jsonschema
import pytest
import yaml

from tests.support.checkout import ROOT
from trapline.analysis.camtrapdp import descriptor
from trapline.errors import UsageError

OFFICIAL = ROOT.parent / "shared" / "camtrap-dp-1.0.2"
SOUND = """
contributors: [{title: Ada, role: contact, email: ada@fen.org}]
licenses: [{name: CC0-1.0, scope: data}, {name: CC-BY-4.0, scope: media}]
version: 1.0
project:
  title: No
  id: 007
  acronym: 2024-05-01
  samplingDesign: targeted
  captureMethod: [activityDetection, timeLapse]
  individualAnimals: false
coordinatePrecision: 0.001
references: [1e3]
mine: {answer: 42, when: 2024-05-01, at: 12:30:00, code: 007, share: -1.5e-3, bound: .inf}
"""


def composed(text: str) -> dict[str, Any]:
    description = descriptor.parse(yaml.load(text, descriptor._Loader), "m.yaml")
    return descriptor.compose(
        description,
        "Fens",
        [(52.1, 13.2, "2024-05-01", "2024-06-01")],
        [{"scientificName": "Ardea", "taxonRank": "genus"}],
    )


def test_text_stays_text_as_it_was_written_and_numbers_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(SOUND)
    found = descriptor.read(f"{tmp_path}/m.yaml").properties
    assert found["version"] == "1.0"
    assert (found["project"]["title"], found["project"]["id"]) == ("No", "007")
    assert found["project"]["acronym"] == "2024-05-01"
    assert found["coordinatePrecision"] == 0.001
    assert found["references"] == ["1e3"]
    assert found["mine"] == {
        "answer": 42, "when": "2024-05-01", "at": "12:30:00", "code": "007", "share": -0.0015, "bound": ".inf",
    }  # fmt: skip
    assert found["project"]["observationLevel"] == ["media", "event"]
    json.dumps(found)


def test_json_is_read_by_the_same_rules(tmp_path: Path) -> None:
    content = yaml.safe_load(SOUND.replace("title: No", "title: Fen")) | {
        "version": 1.125,
        "coordinatePrecision": 0.00001,
    }
    (tmp_path / "m.json").write_text(json.dumps(content, default=str, indent=2).replace("1.125", "1.10"))
    found = descriptor.read(f"{tmp_path}/m.json").properties
    assert (found["version"], found["coordinatePrecision"]) == ("1.10", 1e-5)


def test_a_composed_descriptor_is_a_data_package() -> None:
    content = composed(SOUND)
    jsonschema.validate(content, descriptor.profile())
    plain = {**content, "profile": "data-package"}
    for resource in plain["resources"]:
        resource["schema"] = {"fields": [{"name": "a", "type": "string"}]}  # instead of a URL
    assert not list(frictionless.Package.metadata_validate(plain))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("role: contact", "role: author", "contributors.0.role: 'author' is not one of"),
        ("title: Ada, ", "", "contributors.0.title: is missing"),
        ("ada@fen.org", "ada", "contributors.0.email: 'ada' is not a 'email'"),
        (", {name: CC-BY-4.0, scope: media}", "", "licenses: needs at least 2 entries"),
        ("scope: media", "scope: pictures", "licenses.1.scope: 'pictures' is not one of"),
        (", scope: media", "", "licenses.1.scope: is missing"),
        ("name: CC0-1.0, ", "", "licenses.0: needs a name or a path"),
        ("CC0-1.0", "CC0 1.0", "licenses.0.name: 'CC0 1.0' does not match"),
        ("timeLapse", "activityDetection", "project.captureMethod: has an entry twice"),
        ("activityDetection, timeLapse", "", "project.captureMethod: needs at least 1 entries"),
        ("activityDetection, timeLapse", "video", "project.captureMethod.0: 'video' is not one of"),
        ("targeted", "random", "project.samplingDesign: 'random' is not one of"),
        ("  individualAnimals: false\n", "", "project.individualAnimals: is missing"),
        ("individualAnimals: false", "individualAnimals: no", "project.individualAnimals: 'no' is not of type 'boolean'"),
        ("title: No", "title: ''", "project.title: is empty"),
        ("version: 1.0", "name: My Fens", "name: 'My Fens' does not match"),
        ("version: 1.0", "homepage: fens", "homepage: 'fens' does not match"),
        ("version: 1.0", "keywords: fen", "keywords: 'fen' is not of type 'array'"),
        ("version: 1.0", "relatedIdentifiers: [{relationType: Cites}]", "relatedIdentifiers.0.relatedIdentifier: is missing"),
        ("coordinatePrecision: 0.001", "coordinatePrecision: fine", "coordinatePrecision: 'fine' is not of type 'number'"),
    ],
)  # fmt: skip
def test_what_the_profile_does_not_allow_is_named_with_file_and_property(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(SOUND.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        descriptor.read(str(path))
    assert str(caught.value).startswith(f"{path}: {words}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"), [("{", "neither YAML nor JSON"), ("[1]", "no properties of a package"), ("", "no properties")]
)
def test_what_is_no_description_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(UsageError, match=rf"m\.yaml: {words}"):
        descriptor.read(f"{tmp_path}/m.yaml")


def rules(schema: Any) -> Any:
    """A schema without its prose, and with references and formats as ours are written."""
    if isinstance(schema, list):
        return [rules(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    prose = {"description", "example", "skos:exactMatch", "skos:broadMatch", "skos:narrowMatch", "title"}
    return {name: {key: rules(value) for key, value in each.items()} if name == "properties" else rules(each)
            for name, each in schema.items() if name not in prose or not isinstance(each, str | list | float)}  # fmt: skip


def test_the_profile_is_the_official_one() -> None:
    if not OFFICIAL.is_dir():
        pytest.skip("the official schemas are not on this machine")
    official = json.loads((OFFICIAL / "camtrap-dp-profile.json").read_text())["allOf"][1]
    mine = descriptor.profile()
    assert mine["required"] == official["required"]
    assert set(official["properties"]) <= set(mine["properties"])
    for name in ("temporal", "taxonomic", "coordinatePrecision", "references", "bibliographicCitation"):
        assert rules(official["properties"][name]) == rules(mine["properties"][name])
    theirs = official["properties"]["project"]
    assert mine["properties"]["project"]["required"] == theirs["required"]
    for name in ("samplingDesign", "captureMethod", "individualAnimals", "observationLevel"):
        assert rules(mine["properties"]["project"]["properties"][name]) == rules(theirs["properties"][name])
    for name in ("contributors", "licenses"):
        (field,) = official["properties"][name]["items"]["properties"]
        assert (
            mine["properties"][name]["items"]["properties"][field]["enum"]
            == official["properties"][name]["items"]["properties"][field]["enum"]
        )

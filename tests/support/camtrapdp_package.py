"""Camtrap DP packages as other software reads them."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import frictionless
import jsonschema

from tests.support.checkout import ROOT
from trapline.analysis.camtrapdp import descriptor, validation
from trapline.storage import store

OFFICIAL = ROOT.parent / "shared" / "camtrap-dp-1.0.2"


def rows(package: str, table: str) -> list[dict[str, str]]:
    """Return the rows of a table of a package, as text."""
    text = gzip.decompress(store.read_many([f"{package}/{table}.csv.gz"])[0]).decode()
    return list(csv.DictReader(io.StringIO(text)))


def problems(package: str, scratch: Path) -> list[Any]:
    """Return what frictionless finds wrong with a package, held to the standard's schemas; raise for the profile."""
    scratch.mkdir(exist_ok=True)
    for entry in store.list_files(package):
        (scratch / entry.url.rpartition("/")[2]).write_bytes(store.read_many([entry.url])[0])
    plain = json.loads((scratch / "datapackage.json").read_text())
    jsonschema.validate(plain, descriptor.profile())
    if OFFICIAL.is_dir():
        official = json.loads((OFFICIAL / "camtrap-dp-profile.json").read_text())
        del official["allOf"][1]["properties"]["spatial"]["$ref"]  # lies in the network, like the first of `allOf`
        jsonschema.validate(plain, official["allOf"][1] | {"$defs": official["$defs"]})
    assert plain.pop("profile").endswith("/1.0.2/camtrap-dp-profile.json")
    for resource in plain["resources"]:
        assert resource["schema"].endswith(f"/1.0.2/{resource['name']}-table-schema.json")
        resource["schema"] = validation.schema(resource["name"])
    (scratch / "datapackage.json").write_text(json.dumps(plain))
    report = frictionless.validate(str(scratch / "datapackage.json"))
    assert report.stats["tasks"] == 3
    return report.flatten(["type", "fieldName", "rowNumber", "note"])

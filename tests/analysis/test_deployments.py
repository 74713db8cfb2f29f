import duckdb
import pytest

from trapline.analysis.deployments import located, parse, suggest
from trapline.errors import UsageError

SHARD = "s3://archive/2024/site=12/cam3/0007.tar"


def look_up(
    *sources: str,
    shard: str = SHARD,
    key: str = "DCIM/100/IMG_1.JPG",
    metadata: str | None = None,
    serial: str | None = None,
) -> tuple[str, str]:
    """The deployment and the camera that the sources find."""
    image = "(select ? as shard, ? as key, ?::varchar as metadata, ?::varchar as camera_serial)"
    query = f"select {located([parse(source) for source in sources])} from {image}"
    found: tuple[str, str] = duckdb.execute(query, [shard, key, metadata, serial]).fetchall()[0]
    return found


@pytest.mark.parametrize(
    ("pattern", "deployment", "camera"),
    [
        ("site={site}/{camera}/…", "12/cam3", "cam3"),
        ("site={site}/{camera}", "12/cam3", "cam3"),
        ("site={site}/cam{n}/...", "12/3", "12/3"),
        ("s3://archive/*/site={site}/{camera}/**", "12/cam3", "cam3"),
        ("{camera}/*.tar/DCIM", "cam3", "cam3"),
        ("archive/{year}/site={deployment}/{camera}", "12", "cam3"),
        ("…/{camera}/0007.tar/…/{card}/*.JPG", "cam3/100", "cam3"),
    ],
)
def test_a_pattern_finds_names_in_shard_and_key(pattern: str, deployment: str, camera: str) -> None:
    assert look_up(pattern) == (deployment, camera)


@pytest.mark.parametrize(
    "pattern", ["ite={site}/…", "site={site}/am3", "SITE={site}", "site={site}/*/{card}/*.tar", "cam{n}/*"]
)
def test_a_pattern_matches_whole_folder_names_only(pattern: str) -> None:
    expected = ("3", "3") if pattern == "cam{n}/*" else (None, None)
    assert look_up(pattern) == expected


def test_what_stands_in_a_pattern_stands_for_itself() -> None:
    shard = "/d/Bäume (1+2)/it's.a/{x}.tar"
    assert look_up("Bäume ({n})/it's.{camera}/*", shard=shard, key="a.jpg") == ("1+2/a", "a")
    assert look_up("B.ume ({n})", shard=shard, key="a.jpg") == (None, None)


@pytest.mark.parametrize(
    ("pattern", "cameras"),
    [("archive/{camera}", ["Camera #1", "Camera #2"]), ("archive/Camera #{camera}/*.jpg", ["1", "2"])],
)
def test_a_hash_in_a_folders_name_ends_nothing(pattern: str, cameras: list[str]) -> None:
    found = [look_up(pattern, shard=f"/d/archive/Camera #{number}", key="a#1.jpg")[1] for number in (1, 2)]
    assert found == cameras


def test_a_hash_in_a_pattern_also_ends_the_shard_as_in_an_image_uri() -> None:
    assert look_up("0007.tar#DCIM/{camera}") == ("100", "100")


def test_the_first_source_that_says_something_holds() -> None:
    sources = ("site=99/{camera}", "metadata:station", "serial")
    assert look_up(*sources, metadata='{"station": " S7 "}', serial="H1") == ("S7", "S7")
    assert look_up(*sources, metadata='{"station": ""}', serial="H1") == ("H1", "H1")
    assert look_up(*sources, metadata='{"station": null}', serial=" ") == (None, None)
    assert look_up(*sources, metadata='{"station": cut off', serial="H1") == ("H1", "H1")


def test_sidecars_say_deployment_and_camera() -> None:
    sidecar = '{"place": {"site": "fen", "deployment": "D1"}, "camera": 3}'
    assert look_up("metadata:place.site/camera", metadata=sidecar) == ("fen/3", "3")
    assert look_up("metadata:place.deployment/camera", metadata=sidecar) == ("D1", "3")
    assert look_up("metadata:place.site/missing", metadata=sidecar) == (None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{site}/{camera}/…", "could begin at any folder"),
        ("…/{camera}/*", "could begin at any folder"),
        ("site=3/…", "neither a pattern with names"),
        ("Serial", "neither a pattern with names"),
        ("site={site}/x={site}", "names site twice"),
        ("metadata:a.site/b.site", "names site twice"),
        ("site={}", "is no name"),
        ("site={a", "without its other half"),
        ("site={a}}", "without its other half"),
        ("metadata:", "no field of a sidecar"),
        ('metadata:a"b', "no field of a sidecar"),
    ],
)
def test_what_is_no_source_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"(?s)^[^\n]*{words}[^\n]*$"):
        parse(text)


@pytest.mark.parametrize(
    ("shard", "pattern"),
    [
        ("s3://in/site=a/c1/1.tar", "site=a/{deployment}/…"),
        ("/photos/2024/cam3", "2024/{deployment}/…"),
        ("s3://in/1.tar", None),
        ("/1.tar", None),
        ("/a*b/cam3/1.tar", None),
    ],
)
def test_a_pattern_is_suggested_from_a_path(shard: str, pattern: str | None) -> None:
    assert suggest(shard) == pattern
    if pattern:
        assert look_up(pattern, shard=shard, key="1.jpg")[0] is not None

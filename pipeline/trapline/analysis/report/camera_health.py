"""Rules that find what needs attention: species new at a site, and cameras silent, failing, dark or displaced.

Each rule compares a camera with itself only. `RULES` explains them, for the page that shows the findings.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trapline.analysis import dataset
from trapline.analysis.report.queries import Headline
from trapline.analysis.report.thumbnails import Picture, Thumbnail
from trapline.analysis.sql import Table, ask

# Days with images that a camera must have had for its habits to be known.
_KNOWN_DAYS = 5
# The last images of a camera that are compared, and how many of them (and of those before) may and must have failed.
_LAST, _FEW, _MANY = 20, 0.1, 0.5
# Pictures of a camera that are looked at for their brightness: of its last ones, and of those before; by daylight, for
# a night's flash is dark anyway. Noon of a clock that is set wrong may be night, and then always is.
_LOOKS = 3
_DAYLIGHT = (9, 15)
_DARKER = 0.5
# Images of a day that make a mean worth comparing, days before the last that make a spread, and how many standard
# deviations are far. Earlier days than these are not read.
_DAY_IMAGES, _SPREAD_DAYS, _FAR, _DAYS_READ = 5, 5, 4.0, 30
_BATCH = 4096

RULES = {
    "silent": "No image in the last {silent_after} days before the archive's end, and none for longer than in any "
    f"pause before, though it had images on at least {_KNOWN_DAYS} days. A camera whose card was not yet collected "
    "looks the same.",
    "failing": f"Of its last {_LAST} images at least {_MANY:.0%} failed, and of those before at most {_FEW:.0%}.",
    "dark": f"The mean brightness of its last {_LOOKS} pictures between {_DAYLIGHT[0]} and {_DAYLIGHT[1]} o'clock is "
    f"less than {_DARKER:.0%} of that of {_LOOKS} earlier ones.",
    "displaced": "The mean embedding of its last day is further from that of its earlier days than these are from "
    f"each other, by more than {_FAR:g} standard deviations. Days of fewer than {_DAY_IMAGES} images do not count; "
    f"{_SPREAD_DAYS} must come before the last, and the last {_DAYS_READ} are compared.",
    "new": "First seen at its site in the last {new_within} days of the archive, though the site has images from "
    "before.",
}


@dataclass(frozen=True)
class Finding:
    """A camera that a rule has found.

    Attributes:
        rule: silent, failing, dark or displaced.
        camera: its name.
        why: in figures.
    """

    rule: str
    camera: str
    why: str


def new_species(connection: duckdb.DuckDBPyConnection, head: Headline, within: int) -> Table:
    """Return site, label, first day, images and an example: labels that a site has only had in its last days."""
    return ask(
        connection,
        """
        with dated as (select * from images where captured_at::date between $first and $last and site is not null),
            known as (select site from dated group by site having min(captured_at)::date <= $last::date - $within)
        select site, label, min(captured_at)::date as first_seen, count(*) as images,
            arg_max(image_uri, probability) as example
        from dated semi join known using (site) where named
        group by site, label having first_seen > $last::date - $within order by first_seen desc, site, label""",
        first=head.first,
        last=head.last,
        within=within,
    )


def silent(connection: duckdb.DuckDBPyConnection, head: Headline, after: int) -> list[Finding]:
    """Return cameras that have stopped."""
    found = ask(
        connection,
        """
        with days as (select distinct camera, captured_at::date as day from images
                      where captured_at::date between $first and $last and camera is not null),
            pauses as (select camera, day, day - lag(day) over (partition by camera order by day) as pause from days)
        select camera, max(day) as until, $last::date - max(day) as silence, max(pause) as longest
        from pauses group by camera having count(*) >= $known and silence >= $after and silence > longest
        order by silence desc, camera""",
        first=head.first,
        last=head.last,
        known=_KNOWN_DAYS,
        after=after,
    )
    return [
        Finding("silent", each["camera"], f"last image on {each['until']}, {each['silence']} days before the end; "
                f"its longest pause before was {each['longest']} {'day' if each['longest'] == 1 else 'days'}")
        for each in found.records()
    ]  # fmt: skip


def failing(connection: duckdb.DuckDBPyConnection) -> list[Finding]:
    """Return cameras whose last images fail; images without a time are placed by their names."""
    found = ask(
        connection,
        """
        with placed as (select camera, status = 'failed' as bad, row_number() over (
                partition by camera order by coalesce(captured_at, last_time) desc, image_uri desc) as place
            from (select *, last_value(captured_at ignore nulls) over (
                      partition by camera order by image_uri rows unbounded preceding) as last_time
                  from images where camera is not null)),
            shares as (select camera, avg(bad::int) filter (place <= $recent) as now,
                avg(bad::int) filter (place > $recent) as before, count(*) as images from placed group by camera)
        select camera, now, before from shares
        where images >= 2 * $recent and now >= $many and before <= $few order by now desc, camera""",
        recent=_LAST,
        many=_MANY,
        few=_FEW,
    )
    return [
        Finding("failing", each["camera"], f"{each['now']:.0%} of its last {_LAST} images failed, and "
                f"{each['before']:.0%} of those before")
        for each in found.records()
    ]  # fmt: skip


def looks(connection: duckdb.DuckDBPyConnection, most: int) -> dict[str, tuple[list[Picture], list[Picture]]]:
    """Return daylight pictures of each camera, the last ones and earlier ones, to see whether it has gone dark.

    Args:
        connection: with the table `images`.
        most: pictures, over all cameras; those with the most images come first.
    """
    found = ask(
        connection,
        """
        with numbered as (
            select *, count(*) over (partition by camera) as of_camera,
                row_number() over (partition by camera order by captured_at desc, image_uri) as place
            from images where status = 'ok' and not is_clip and camera is not null and content_sha256 is not null
                and hour(captured_at) >= $morning and hour(captured_at) < $evening
        ), chosen as (
            -- Earlier ones by their hash: of no one day, and the same ones again.
            select *, row_number() over (partition by camera, place <= $looks
                order by case when place <= $looks then place else hash(image_uri) end) as turn
            from numbered where of_camera >= 3 * $looks
        )
        select camera, place <= $looks as is_last, shard, key, content_sha256
        from chosen where turn <= $looks order by of_camera desc, camera, place limit $most""",
        at_most=most,
        looks=_LOOKS,
        morning=_DAYLIGHT[0],
        evening=_DAYLIGHT[1],
        most=most // (2 * _LOOKS) * (2 * _LOOKS),
    )
    answer: dict[str, tuple[list[Picture], list[Picture]]] = defaultdict(lambda: ([], []))
    for camera, is_last, *place in found.rows:
        answer[camera][0 if is_last else 1].append(Picture(*place))
    return dict(answer)


def dark(
    looked_at: Mapping[str, tuple[Sequence[Picture], Sequence[Picture]]], thumbnails: Mapping[Picture, Thumbnail]
) -> tuple[list[Finding], int]:
    """Return cameras whose last pictures are dark, and the number of cameras that could be judged."""
    findings, judged = [], 0
    for camera, halves in looked_at.items():
        known = [
            [thumbnails[picture].brightness for picture in half if thumbnails[picture].data_uri] for half in halves
        ]
        if not all(known):
            continue
        judged += 1
        now, before = (float(np.mean(values)) for values in known)
        if now < _DARKER * before:
            findings.append(Finding("dark", camera, f"mean brightness {now:.0%}, and {before:.0%} before"))
    return findings, judged


def displaced(connection: duckdb.DuckDBPyConnection, urls: Sequence[str]) -> tuple[list[Finding], int]:
    """Return cameras whose view changed on their last day, and the number of cameras that could be judged.

    Reads the embeddings of at most `_DAYS_READ` days of each camera; memory is that of their means.

    Args:
        connection: with the table `images`.
        urls: of the results, whose rows have embeddings.
    """
    findings, judged = [], 0
    for camera, days in sorted(_centroids(connection, urls).items()):
        *before, last = [days[day] for day in sorted(days)]
        judged += 1
        own = [_distance(day, _others(before, place)) for place, day in enumerate(before)]
        distance = _distance(last, np.mean(before, axis=0))
        usual, spread = float(np.mean(own)), float(np.std(own, ddof=1))
        if distance > usual + _FAR * spread and distance > max(own):
            far = f"at a cosine distance of {distance:.3f} from its days before"
            why = f"on {max(days)} {far}, which were at {usual:.3f} ± {spread:.3f} from each other"
            findings.append(Finding("displaced", camera, why))
    return findings, judged


def _centroids(
    connection: duckdb.DuckDBPyConnection, urls: Sequence[str]
) -> dict[str, dict[date, npt.NDArray[np.float64]]]:
    """Return the mean embedding [D] by camera and day, of cameras with enough days."""
    days = ask(
        connection,
        """
        with days as (
            select camera, captured_at::date as day from images
            where status != 'failed' and camera is not null and captured_at is not null
            group by camera, captured_at::date having count(*) >= $images
            qualify row_number() over (partition by camera order by day desc) <= $most)
        from days semi join (select camera from days group by camera having count(*) > $least) using (camera)
        order by all""",
        at_most=10**9,
        images=_DAY_IMAGES,
        least=_SPREAD_DAYS,
        most=_DAYS_READ,
    )
    if not days.rows:
        return {}
    numbers = {
        "number": range(len(days.rows)),
        "camera": [row[0] for row in days.rows],
        "day": [row[1] for row in days.rows],
    }
    connection.register("days", pa.table({name: pa.array(values) for name, values in numbers.items()}))
    stream = connection.sql(f"""
        select number, embedding from {dataset.without_frames(connection, urls)} join images using (image_uri)
        join days on images.camera = days.camera and images.captured_at::date = days.day
        where embedding is not null""").to_arrow_reader(_BATCH)
    sums: npt.NDArray[np.float64] | None = None
    counts = np.zeros(len(days.rows))
    for batch in stream:
        place = batch.column("number").to_numpy()
        vectors = batch.column("embedding")
        matrix = vectors.flatten().to_numpy().reshape(len(batch), -1).astype(np.float64)
        sums = np.zeros((len(days.rows), matrix.shape[1])) if sums is None else sums
        finite = np.isfinite(matrix).all(axis=1)
        np.add.at(sums, place[finite], matrix[finite])
        np.add.at(counts, place[finite], 1)
    answer: dict[str, dict[date, npt.NDArray[np.float64]]] = defaultdict(dict)
    for number, (camera, day) in enumerate(days.rows):
        if sums is not None and counts[number]:
            answer[camera][day] = sums[number] / counts[number]
    return {camera: days for camera, days in answer.items() if len(days) > _SPREAD_DAYS}


def _others(vectors: Sequence[npt.NDArray[np.float64]], but: int) -> Any:
    return np.mean([vector for place, vector in enumerate(vectors) if place != but], axis=0)


def _distance(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return 1 - float(one @ other) / length if length else 0.0

"""The queries of a report, in SQL over the table `images` of `image_table.py`.

Each answer is a `Table` that is small enough for a page, however large the archive.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from trapline.analysis.dataset import Results
from trapline.analysis.sql import Table, ask
from trapline.errors import UsageError

# Of a chart.
MOST_MARKS = 4000
# The share of images with the lowest energy that is called suspicious.
TAIL = 0.01
_BINS = 36

# A camera's days are compared stretch by stretch; a pause of more days than this begins another one. A stretch with no
# other camera's day within as many days is isolated.
ISOLATED_CAMERA_DAYS = 30
# An isolated stretch counts if it lies no further than this from one that is not, as a season does; and where the
# camera has other stretches, from which its clock may have jumped, if it has images on so many days.
SEASON_DISTANCE_DAYS = 365
SEASON_DAYS = 5

# The first and the last day of an archive, by cameras whose clocks can be believed: one wrong clock must not make all
# other cameras look silent. Days before digital camera traps, or after today, vouch for no other camera's.
_SPAN = f"""
    with days as (
        select distinct coalesce(camera, '') as camera, captured_at::date as day
        from images where captured_at is not null
    ), compared as (
        select *, min(camera) over around != max(camera) over around
                and day between date '2001-01-01' and current_date + 1 as has_company,
            coalesce(day - lag(day) over (partition by camera order by day) > {ISOLATED_CAMERA_DAYS}, true) as begins
        from days window around as (order by day range between interval {ISOLATED_CAMERA_DAYS} days preceding
            and interval {ISOLATED_CAMERA_DAYS} days following)
    ), numbered as (
        select *, sum(begins::int) over (partition by camera order by day) as stretch from compared
    ), stretches as (
        select camera, min(day) as first, max(day) as last, count(*) as days, bool_or(has_company) as has_company
        from numbered group by camera, stretch
    ), placed as (
        select *, bool_or(has_company) over (partition by camera) as camera_has_company, exists (
            select 1 from stretches as other where other.has_company
                and stretches.first - other.last <= {SEASON_DISTANCE_DAYS}
                and other.first - stretches.last <= {SEASON_DISTANCE_DAYS}) as is_near
        from stretches
    )
    select min(first), max(last) from placed
    where has_company or (is_near and (days >= {SEASON_DAYS} or not camera_has_company))
        or not (select bool_or(has_company) from stretches)"""


@dataclass(frozen=True)
class Headline:
    """The archive in figures.

    Attributes:
        images, ok, salvaged, failed: rows, by status; clips are among them.
        clips: of these.
        unnamed: of those not failed, the ones with no label that the model was sure enough of.
        shards, sites, cameras, labels: how many there are; labels of named images only.
        undated, unplaced: images without a time, and without a camera.
        first, last: the days from the archive's beginning to its end; None if no image has a time. Days of a clock
            that is probably wrong do not count (see `_SPAN`).
        outside: images with a time before or after that.
    """

    images: int
    ok: int
    salvaged: int
    failed: int
    clips: int
    unnamed: int
    shards: int
    sites: int
    cameras: int
    labels: int
    undated: int
    unplaced: int
    first: datetime | None
    last: datetime | None
    outside: int

    @property
    def days(self) -> int:
        """Return the number of days from the first to the last."""
        return (self.last - self.first).days + 1 if self.first and self.last else 0


def headline(connection: duckdb.DuckDBPyConnection, found: Results) -> Headline:
    """Return the archive in figures; raise UsageError if there is no image at all."""
    ((first, last),) = connection.execute(_SPAN).fetchall()
    found_ = connection.execute(
        """
        select count(*), count(*) filter (status = 'ok'), count(*) filter (status = 'salvaged'),
            count(*) filter (status = 'failed'), count(*) filter (is_clip),
            count(*) filter (status != 'failed' and not named),
            count(distinct shard), count(distinct site), count(distinct camera),
            count(distinct label) filter (named), count(*) filter (captured_at is null),
            count(*) filter (camera is null), $first::date, $last::date,
            count(*) filter (captured_at::date not between $first::date and $last::date)
        from images""",
        {"first": first, "last": last},
    ).fetchall()
    answer = Headline(*found_[0])
    if not answer.images:
        raise UsageError(
            f"{found.output}: its {len(found.files)} results hold no image, so there is nothing to report; "
            "`trapline verify` compares them with the archive"
        )
    return answer


def failures(connection: duckdb.DuckDBPyConnection) -> Table:
    """Return reason, status, images, an example: of what failed and what was salvaged."""
    return ask(
        connection,
        """
        select coalesce(reason, '(none given)') as reason, status, count(*) as images, min(image_uri) as example
        from images where status != 'ok' group by all order by images desc, reason, status""",
    )


def failures_by_camera(connection: duckdb.DuckDBPyConnection) -> Table:
    """Return camera, reason, images and the camera's images in all, of those that failed or were salvaged."""
    return ask(
        connection,
        """
        with counted as (
            select coalesce(camera, '(none said)') as camera, coalesce(reason, '(none given)') as reason,
                status != 'ok' as bad, count(*) as images
            from images group by all
        ), every as (
            select *, sum(images) over (partition by camera)::bigint as of_images,
                sum(images) filter (bad) over (partition by camera) as of_bad
            from counted
        )
        select camera, reason, images, of_images from every where bad
        order by of_bad desc, camera, images desc, reason""",
    )


def energies(connection: duckdb.DuckDBPyConnection) -> tuple[float | None, Table]:
    """Return the energy below which the lowest `TAIL` lie; and bins: low, high, images, suspicious."""
    ((lowest, highest, threshold),) = connection.execute(
        f"select min(energy), max(energy), quantile_disc(energy, {TAIL}) from images where isfinite(energy)"
    ).fetchall()
    if lowest is None or lowest == highest:
        return None, Table(("low", "high", "images", "suspicious"), [])
    return threshold, ask(
        connection,
        """
        select $low + bin * $width as low, $low + (bin + 1) * $width as high, count(*) as images,
            count(*) filter (energy <= $threshold) as suspicious
        from (select energy, least(floor((energy - $low) / $width), $bins - 1) as bin
              from images where isfinite(energy))
        group by bin order by bin""",
        low=lowest,
        width=(highest - lowest) / _BINS,
        bins=_BINS,
        threshold=threshold,
    )


def best(connection: duckdb.DuckDBPyConnection, count: int) -> Table:
    """Return the picture with the highest probability, for each of the most common labels."""
    return _pictures(
        connection,
        """named and status = 'ok'
        qualify row_number() over (partition by label order by probability desc, image_uri) = 1
        order by count(*) over (partition by label) desc, label""",
        count,
    )


def doubtful(connection: duckdb.DuckDBPyConnection, count: int) -> Table:
    """Return the pictures with the lowest probability, one for each hour of a camera."""
    return _pictures(connection, f"probability is not null {_ONE_OF_AN_HOUR} order by probability, image_uri", count)


def lowest_energy(connection: duckdb.DuckDBPyConnection, count: int) -> Table:
    """Return the pictures that look least like any class: of lowest energy."""
    return _pictures(connection, "isfinite(energy) order by energy, image_uri", count)


def daily(connection: duckdb.DuckDBPyConnection, head: Headline, cameras: Sequence[str], days: int) -> Table:
    """Return camera, day, images: of these cameras, on the last days of the archive."""
    return ask(
        connection,
        """
        select camera, captured_at::date as day, count(*) as images from images
        where list_contains($cameras, camera) and captured_at::date between $last::date - $days + 1 and $last
        group by all order by camera, day""",
        at_most=MOST_MARKS,
        cameras=list(cameras),
        last=head.last,
        days=days,
    )


def cameras_without_images(
    connection: duckdb.DuckDBPyConnection, head: Headline, cameras: Sequence[str], days: int
) -> Table:
    """Return camera, images: of cameras that `daily` returns no row of, with the same arguments."""
    return ask(
        connection,
        """
        select camera, count(*) as images from images where camera is not null group by camera
        having not coalesce(list_contains($cameras, camera) and bool_or(
            captured_at::date between $last::date - $days + 1 and $last), false)
        order by camera""",
        cameras=list(cameras),
        last=head.last,
        days=days,
    )


_ONE_OF_AN_HOUR = """qualify row_number() over (
    partition by camera, coalesce(date_trunc('hour', captured_at)::varchar, image_uri)
    order by probability, image_uri) = 1"""


def _pictures(connection: duckdb.DuckDBPyConnection, which: str, count: int) -> Table:
    return ask(
        connection,
        f"""
        select file, image_uri, is_clip, shard, key, content_sha256, captured_at, camera, label, probability, energy
        from images where status != 'failed' and content_sha256 is not null and {which} limit $count""",
        count=count,
    )

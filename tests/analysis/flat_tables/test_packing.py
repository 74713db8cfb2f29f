"""Which shard goes in which file: whatever comes and goes, a shard stays where it is."""

from hypothesis import given
from hypothesis import strategies as st

from trapline.analysis.flat_tables.contents import Part, TableFile
from trapline.analysis.flat_tables.packing import FilePlan, assign
from trapline.analysis.tables import Origin
from trapline.results.fingerprint import Fingerprint

ORIGIN = Origin(Fingerprint({}), "")
NIGHTS = st.lists(st.dictionaries(st.integers(0, 30), st.integers(0, 12), max_size=20), min_size=1, max_size=6)


def parts(night: dict[int, int]) -> list[Part]:
    """A night's archive: shard -> images; a shard with other images is another version."""
    return [Part(f"in/{number:06}", f"{number:06}.parquet", f"1-{images}", images) for number, images in night.items()]


def written(plans: list[FilePlan]) -> dict[str, TableFile]:
    return {plan.url: TableFile(plan.url, ORIGIN, plan.parts) for plan in plans}


@given(NIGHTS)
def test_each_night_each_shard_is_in_one_file_and_stays_there(nights: list[dict[int, int]]) -> None:
    existing: dict[str, TableFile] = {}
    for night in nights:
        before = {part.shard: url for url, file in existing.items() for part in file.parts}
        plans = assign(parts(night), existing, "t", 10)
        held = [part for plan in plans for part in plan.parts]
        assert sorted(held, key=lambda part: part.shard) == sorted(parts(night), key=lambda part: part.shard)
        after = {part.shard: plan.url for plan in plans for part in plan.parts}
        assert all(after[shard] == before[shard] for shard in after.keys() & before.keys())
        for plan in plans:
            old = set(existing[plan.url].parts) if plan.url in existing else set()
            assert plan.complete == (old == set(plan.parts))
            assert set(plan.kept) == old & set(plan.parts)
        existing = written(plans)
        again = assign(parts(night), existing, "t", 10)
        assert all(plan.complete for plan in again)


def test_a_first_night_is_packed_in_the_order_of_paths() -> None:
    plans = assign(parts(dict.fromkeys(range(7, -1, -1), 5)), {}, "t", 10)
    assert [(plan.url, [part.shard for part in plan.parts]) for plan in plans] == [
        (f"t/images-{number + 1:05}.parquet", [f"in/{2 * number:06}", f"in/{2 * number + 1:06}"]) for number in range(4)
    ]


def test_of_many_shards_a_changed_one_and_a_new_one_write_two_files() -> None:
    archive = dict.fromkeys(range(10_000), 1_000)
    existing = written(assign(parts(archive), {}, "t", 1_000_000))
    assert len(existing) == 10
    archive[1_234] = 999
    archive[20_000] = 1_000
    todo = [plan for plan in assign(parts(archive), existing, "t", 1_000_000) if not plan.complete]
    assert [(plan.url, len(plan.kept), len(plan.changed)) for plan in todo] == [
        ("t/images-00002.parquet", 999, 1),
        ("t/images-00011.parquet", 0, 1),
    ]

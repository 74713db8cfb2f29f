import json
from collections import Counter
from dataclasses import replace

from tests.support.progress import chunk, footer, run_progress
from trapline.detections.index import EXAMPLES, Index
from trapline.run.messages import EndOfShard
from trapline.run.tallies import Tallies, by_status


def test_images_rows_and_reasons_are_those_of_the_footers() -> None:
    plan = run_progress(todo=3, done=2).plan
    tallies = Tallies(plan)
    tallies.commit(footer(plan.todo[0], crops=7, clips=2, frames=120))
    tallies.commit(
        footer(plan.todo[1], images={"ok": 0, "salvaged": 0, "failed": 1}, reasons={"empty": 1}, species={}, crops=2)
    )
    assert by_status(tallies.images) == {"ok": 3, "salvaged": 1, "failed": 2}
    assert by_status(tallies.images_already_done) == {"ok": 6, "salvaged": 2, "failed": 2}
    assert tallies.reasons == {"empty": 2, "truncated": 1}
    assert tallies.species == {"owl": 4}
    assert tallies.ignored == {"Thumbs.db": 2, ".mp4": 2}
    assert (tallies.crops, tallies.clips, tallies.frames) == (9, 2, 120)


def test_images_of_another_run_are_already_done_and_nothing_else_of_it_is_counted() -> None:
    plan = run_progress(todo=1).plan
    tallies = Tallies(plan)
    tallies.done_by_another(footer(plan.todo[0], crops=7))
    assert by_status(tallies.images_already_done) == {"ok": 3, "salvaged": 1, "failed": 1}
    assert (tallies.images, tallies.reasons, tallies.species, tallies.crops) == ({}, {}, {}, 0)


def test_images_that_came_back_are_seen_and_those_carried_over_are_besides() -> None:
    plan = run_progress(todo=2).plan
    tallies = Tallies(plan)
    tallies.record_chunk(chunk(plan.todo[0], ok=5, failed=2))
    tallies.record_chunk(replace(chunk(plan.todo[1], ok=3, failed=1), carried=True))
    assert (tallies.images_seen, tallies.failed_seen, tallies.carried_over) == (7, 2, 4)
    assert tallies.images == {}  # nothing is committed


def test_counts_of_a_plan_are_not_changed_by_what_is_counted_later() -> None:
    plan = run_progress(todo=1).plan
    Tallies(plan).commit(footer(plan.todo[0]))
    assert plan.found.ignored == {"Thumbs.db": 2}


def test_a_manifest_names_no_more_kinds_of_ignored_files_than_a_footer() -> None:
    progress = run_progress(todo=200, done=0)
    for number, shard in enumerate(progress.plan.todo):
        progress.commit(
            footer(shard, ignored={f".kind-{number:03}-{kind:03}-of-some-length": 1 for kind in range(100)})
        )
    manifest = progress.manifest("complete")
    assert sum(manifest.ignored.values()) == 200 * 100 + 2  # those of the plan
    assert len(json.dumps(manifest.ignored)) < 10_000  # 740,000 before there was a limit


class TestDetections:
    def test_without_any_there_are_no_counts(self) -> None:
        assert Tallies(run_progress().plan).detections == {}

    def test_names_that_no_shard_has_are_added_to_those_of_no_shard(self) -> None:
        plan = run_progress(todo=2).plan
        tallies = Tallies(plan)
        index = Index(counts=Counter(images=9, unmatched=2), examples=["x/1.jpg", "x/2.jpg"])
        tallies.record_index(index)
        end = EndOfShard(unmatched=["b.jpg", "a.jpg"])
        tallies.record_chunk(replace(chunk(plan.todo[0]), end=end))
        tallies.commit(footer(plan.todo[0], unmatched=2))
        uri = plan.todo[0].uri
        examples = ["x/1.jpg", "x/2.jpg", f"{uri}#a.jpg", f"{uri}#b.jpg"]
        assert tallies.detections == {"images": 9, "unmatched": 4, "examples": examples}
        assert index.counts["unmatched"] == 2

    def test_there_are_a_few_examples_of_however_many_shards(self) -> None:
        plan = run_progress(todo=4).plan
        tallies = Tallies(plan)
        tallies.record_index(Index(counts=Counter(unmatched=0)))
        for shard in plan.todo:
            unmatched = EndOfShard(unmatched=[f"{number}.jpg" for number in range(3)])
            tallies.record_chunk(replace(chunk(shard), end=unmatched))
        examples = tallies.detections["examples"]
        assert len(examples) == len({*examples}) == EXAMPLES


def test_statuses_that_did_not_occur_are_counted_as_none() -> None:
    assert by_status(Counter(ok=2)) == {"ok": 2, "salvaged": 0, "failed": 0}

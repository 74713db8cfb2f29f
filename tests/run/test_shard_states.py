from tests.support.progress import failure, footer, shards
from trapline.run.shard_states import ShardStates


def test_each_shard_is_unfinished_failed_or_settled() -> None:
    todo = shards(4)
    states = ShardStates(todo)
    assert (states.unfinished, states.settled) == (4, 0)
    states.commit(footer(todo[0]))
    states.done_by_another(footer(todo[1]))
    states.fail(failure(todo[2]))
    assert (states.unfinished, states.settled, [*states.failures]) == (1, 2, [todo[2].uri])
    assert [states.has_result(shard.uri) for shard in todo] == [True, True, False, False]


def test_the_last_failure_of_a_shard_is_the_one_that_is_kept() -> None:
    (shard,) = shards(1)
    states = ShardStates([shard])
    for reason in ("busy", "gone"):
        states.fail(failure(shard, reason))
    assert [each.reason for each in states.failures.values()] == [f"{shard.uri}: gone"]


def test_a_result_makes_up_for_a_failure_and_no_failure_for_a_result() -> None:
    ours, theirs = todo = shards(2)
    states = ShardStates(todo)
    for _ in range(2):
        for shard in todo:
            states.fail(failure(shard))
        states.commit(footer(ours))
        states.done_by_another(footer(theirs))
        assert (states.failures, states.unfinished, states.settled) == ({}, 0, 2)
        for shard in todo:
            states.fail(failure(shard))
        assert states.failures == {}


def test_a_shard_that_is_read_again_is_unfinished_and_not_failed() -> None:
    todo = shards(3)
    states = ShardStates(todo)
    for shard in todo[:2]:
        states.fail(failure(shard))
    states.retry(todo[1:])
    assert ([*states.failures], states.unfinished) == ([todo[0].uri], 2)


def test_a_committed_shard_that_broke_off_is_named_with_its_reason() -> None:
    sound, broken = todo = shards(2)
    states = ShardStates(todo)
    states.commit(footer(sound))
    states.commit(footer(broken, broken="cut at byte 9000"))
    assert states.broken == {broken.uri: "cut at byte 9000"}


def test_progress_is_of_bytes_and_what_is_read_again_or_has_grown_is_none() -> None:
    todo = shards(4)
    states = ShardStates(todo)
    assert states.fraction_done == 0
    states.advance(todo[0].uri, 1000, 400)
    assert (states.bytes_done, states.fraction_done) == (400, 0.1)
    for _ in range(3):
        states.advance(todo[0].uri, 1000, 400)
    assert states.fraction_done == 0.25
    states.commit(footer(todo[0]))
    states.done_by_another(footer(todo[1]))
    states.commit(footer(todo[2]))
    assert (states.bytes_done, states.fraction_done) == (3000, 0.75)


def test_with_nothing_to_do_all_is_done() -> None:
    assert (ShardStates([]).fraction_done, ShardStates([]).unfinished) == (1, 0)

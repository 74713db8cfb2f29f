from trapline.results.fingerprint import Fingerprint


def test_the_digest_is_that_of_the_canonical_json() -> None:
    one, other = Fingerprint({"b": [1.5, None], "a": "Hütte"}), Fingerprint({"a": "Hütte", "b": [1.5, None]})
    assert one.to_json() == '{"a":"Hütte","b":[1.5,null]}'
    # As `sha256sum` gives it: results that were written in other years must be found to be done.
    assert one.digest == other.digest == "a640e19db3c634f909cbcdba3bd8d8d43fe41bb269c16b237ebae4639e65e51b"


def test_differences_name_both_values_and_cut_long_ones() -> None:
    mine, theirs = Fingerprint({"top_k": 5, "old": 1, "long": "x" * 99}), Fingerprint({"top_k": 3, "long": "y"})
    assert mine.differences(theirs) == [
        f'long: "{"x" * 36}... -> "y"',
        "old: 1 -> null",
        "top_k: 5 -> 3",
    ]


def test_without_clips_no_option_for_clips_is_left_also_of_what_was_rescored() -> None:
    facts = {"top_k": 5, "video_fps": 1.0, "video_frames": 60, "clip_boxes": "x"}
    assert Fingerprint(facts).without_clips().facts == {"top_k": 5}
    rescored = Fingerprint({"threshold": 0.8, "rescored": {"rescored": facts}}).without_clips()
    assert rescored.facts == {"threshold": 0.8, "rescored": {"rescored": {"top_k": 5}}}
    assert Fingerprint({"top_k": 5, "video": False}).without_clips() == Fingerprint({"top_k": 5})

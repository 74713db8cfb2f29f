"""Which frame stands for a clip."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.support.report import COLUMNS, ask, plant, seen
from tests.support.result_files import Planted
from trapline.analysis import dataset
from trapline.analysis.report import clip_frames, queries
from trapline.cli import rescore


def filmed(key: str, *frames: Sequence[float]) -> list[Planted]:
    """The row of a clip, with the mean of its frames' probabilities, and those of the frames: one every two seconds."""
    logits = np.array(frames, np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    clip = seen(key, 0, np.log(probabilities.mean(axis=0)).tolist(), media_type="video")
    return [
        clip,
        *(
            replace(clip, logits=of_frame, facts=clip.facts | {"frame_seconds": 2.0 * number})
            for number, of_frame in enumerate(frames)
        ),
    ]


def best(output: str) -> dict[str, float]:
    connection, _ = ask(output)
    rows = queries.lowest_energy(connection, 99).records()
    found = clip_frames.best(connection, dataset.find(output), [row for row in rows if row["is_clip"]])
    return {uri.rpartition("/")[2]: seconds for uri, seconds in found.items()}


def test_it_is_the_frame_in_which_the_label_of_the_clip_is_the_most_probable(tmp_path: Path) -> None:
    owl, wren, any_bird, robin = (2.0, 0, 0), (0, 0, 1.0), (0, 0.1, 0), (0, 3.0, 0)
    results, rescored = f"{tmp_path}/results", f"{tmp_path}/rescored"
    one = [*filmed("a.mp4", wren, any_bird, robin, owl), seen("c.jpg"), *filmed("e.mp4", owl, owl)]
    plant(results, "fen/c1", one)
    # A wren by the mean, and by no frame: the one that comes closest.
    plant(results, "moor/c2", [seen("b.jpg"), *filmed("d.mp4", (0, 2.0, 1.5), (2.0, 0, 1.9))])
    expected = {"1.tar#a.mp4": 4.0, "1.tar#d.mp4": 2.0, "1.tar#e.mp4": 0.0}
    assert best(results) == expected
    assert rescore.main([results, rescored, "--temperature", "1"]) == 0
    assert best(rescored) == expected


def test_of_rescored_results_it_is_the_frame_of_the_taxon(tmp_path: Path) -> None:
    plant(f"{tmp_path}/in", "fen/c1", filmed("a.mp4", (0, 6.0, 6), (0, 8.0, 8)))
    table = tmp_path / "taxonomy.csv"
    table.write_text("species,family,class\nowl,Strigidae,Aves\nrobin,Passeridae,Aves\nwren,Passeridae,Aves\n")
    assert rescore.main([f"{tmp_path}/in", f"{tmp_path}/out", "--taxonomy", str(table)]) == 0
    assert best(f"{tmp_path}/out") == {"1.tar#a.mp4": 2.0}


def test_a_frame_with_crops_counts_as_the_best_of_them(tmp_path: Path) -> None:
    first, *_ = clip = filmed("a.mp4", (0, 3, 0), (0, 1, 0))
    frame = replace(first, logits=(), facts=first.facts | {"frame_seconds": 9.0})
    crops = [replace(frame, logits=logits, crop=number) for number, logits in ((1, (9, 0, 0)), (2, (0, 9, 0)))]
    plant(str(tmp_path), "fen/c1", [*clip, frame, *crops], replace(COLUMNS, crops=True))
    assert best(str(tmp_path)) == {"1.tar#a.mp4": 9.0}


def test_results_without_clips_have_none(tmp_path: Path) -> None:
    plant(str(tmp_path), "fen/c1", [seen("a.jpg")], replace(COLUMNS, classes=("owl", "robin", "wren")))
    assert best(str(tmp_path)) == {}

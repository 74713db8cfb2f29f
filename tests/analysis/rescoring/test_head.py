import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from trapline.analysis.rescoring import head
from trapline.analysis.rescoring.head import fit
from trapline.errors import UsageError
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

MARK = Fingerprint({"weights_sha256": "ab", "size": [64, 64], "top_k": 5})


def planted(
    species: int, cameras: int, each: int = 12, noise: float = 0.3, offset: float = 2.0
) -> tuple[np.ndarray, list[str], list[str]]:
    """Embeddings float32 [N, 12] with a direction for each species, and an offset for each camera, across them."""
    rng = np.random.default_rng(0)
    rows, names, places = [], [], []
    for camera in range(cameras):
        away = np.concatenate([np.zeros(6), rng.normal(0, offset, 6)])
        for kind in range(species):
            rows.append(np.eye(12)[kind] * 3 + away + rng.normal(0, noise, (each, 12)))
            names += [f"species {kind}"] * each
            places += [f"cam{camera}"] * each
    return np.concatenate(rows).astype(np.float32), names, places


def called(found: head.Head, embeddings: np.ndarray) -> list[str]:
    return [found.classes[best] for best in found.logits(embeddings).argmax(axis=1)]


@pytest.mark.parametrize("species", [2, 4])
def test_what_sets_species_apart_is_learned_and_not_what_sets_cameras_apart(species: int) -> None:
    embeddings, names, cameras = planted(species, 8)
    away = np.array([camera in ("cam0", "cam1") for camera in cameras])
    found = fit(embeddings[~away], list(np.array(names)[~away]), list(np.array(cameras)[~away]), MARK)
    assert called(found.head, embeddings[away]) == list(np.array(names)[away])
    assert found.head.cameras == ("cam2", "cam3", "cam4", "cam5", "cam6", "cam7")
    assert found.log_loss is not None
    assert found.log_loss < 0.1


@pytest.mark.parametrize("species", [2, 3])
def test_probabilities_are_those_of_scikit_learn(species: int) -> None:
    embeddings, names, cameras = planted(species, 3, noise=3)
    found = fit(embeddings, names, cameras, MARK)
    scaled = StandardScaler().fit_transform(embeddings)
    strength = found.strength * (
        2 if species == 2 else 1
    )  # scikit-learn's one vector stands for both, and is twice each
    oracle = LogisticRegression(C=strength, max_iter=1000, tol=1e-8).fit(scaled, names).predict_proba(scaled)
    values = found.head.logits(embeddings)
    mine = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    assert mine == pytest.approx(oracle, abs=2e-3)


def test_labels_that_are_noise_are_met_with_a_strong_penalty() -> None:
    embeddings, names, cameras = planted(3, 6, noise=1)
    shuffled = list(np.random.default_rng(1).permutation(names))
    assert fit(embeddings, shuffled, cameras, MARK).strength < 1e-2 < fit(embeddings, names, cameras, MARK).strength


def test_unseen_logits_come_from_heads_that_have_not_seen_the_camera() -> None:
    embeddings, names, cameras = planted(3, 4, noise=2)
    found = fit(embeddings, names, cameras, MARK)
    values, honest = found.unseen_logits(embeddings, cameras)
    assert honest.all()
    for number, fold in enumerate(found.folds):
        mine = np.array([found.fold_of[camera] == number for camera in cameras])
        assert not set(np.array(cameras)[mine]) & set(fold.cameras)
        assert np.array_equal(values[mine], fold.logits(embeddings[mine]))
    elsewhere, fine = found.unseen_logits(embeddings[:2], ["cam9", "cam9"])
    assert np.array_equal(elsewhere, found.head.logits(embeddings[:2]))
    assert fine.all()


def test_a_species_of_one_camera_only_does_no_harm_to_the_choice_of_penalty() -> None:
    embeddings, names, cameras = planted(3, 4)
    names = ["hermit" if camera == "cam1" and name == "species 2" else name for name, camera in zip(names, cameras)]  # noqa: B905
    found = fit(embeddings, names, cameras, MARK)
    assert found.log_loss is not None
    assert found.log_loss < 0.2
    fold = found.folds[found.fold_of["cam1"]]
    assert np.isneginf(fold.logits(embeddings[:1])[0, fold.classes.index("hermit")])


def test_of_one_camera_a_head_can_be_learned_but_no_penalty_chosen() -> None:
    embeddings, names, cameras = planted(2, 1)
    found = fit(embeddings, names, cameras, MARK)
    assert (found.folds, found.log_loss) == ((), None)
    assert called(found.head, embeddings) == names
    assert not found.unseen_logits(embeddings, cameras)[1].any()


def test_one_species_is_refused() -> None:
    with pytest.raises(UsageError, match="all images to train on are 'owl'"):
        fit(np.zeros((3, 2), np.float32), ["owl"] * 3, ["a", "b", "c"], MARK)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_head_survives_its_file(kind: str, tmp_path: Path, bucket: str) -> None:
    embeddings, names, cameras = planted(3, 2)
    found = fit(embeddings, names, cameras, MARK).head
    url = f"{bucket}/h" if kind == "s3" else str(tmp_path / "h")
    store.put(url, found.to_bytes())
    again = head.load(url)
    assert np.array_equal(again.logits(embeddings), found.logits(embeddings))
    assert (again.classes, again.cameras, again.digest) == (found.classes, found.cameras, found.digest)
    again.refuse_other(Fingerprint({**MARK.facts, "top_k": 9}), url)
    with pytest.raises(UsageError, match=r'with different settings \(weights_sha256: "ab" -> "cd"\)'):
        again.refuse_other(Fingerprint({**MARK.facts, "weights_sha256": "cd"}), url)


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\x02" + b"\0" * 7 + b"{}"])
def test_another_file_is_no_head(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "h").write_bytes(data)
    with pytest.raises(UsageError, match="is no head of Trapline's"):
        head.load(str(tmp_path / "h"))


def test_the_header_is_readable() -> None:
    embeddings, names, cameras = planted(2, 2)
    data = fit(embeddings, names, cameras, MARK).head.to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert json.loads(header["classes"]) == ["species 0", "species 1"]
    assert json.loads(header["embedding"]) == {"weights_sha256": "ab", "size": [64, 64]}

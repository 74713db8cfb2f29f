from trapline.results import layout
from trapline.storage.store import Entry


def test_no_side_file_is_taken_for_data() -> None:
    side = [
        layout.classes_file("/out"),
        layout.ledger_cache("/out"),
        layout.manifest("/out", "r1"),
        layout.runs_folder("/out"),
        layout.detections_folder("/out"),
        layout.side_file("/out", "x.parquet"),
    ]
    assert all(url.startswith("/out/_trapline/") for url in side)
    data = ["/out/a.tar.parquet", "/out/site=1/images.parquet", "/out/_trapline.tar.parquet"]
    entries = [Entry(url, 1, "1-e") for url in [*side, *data, "/out/notes.txt"]]
    assert [entry.url for entry in layout.data_files(entries)] == data


def test_a_manifest_is_named_by_its_run() -> None:
    assert layout.manifest("s3://b/out/", "r1") == "s3://b/out/_trapline/runs/r1.json"

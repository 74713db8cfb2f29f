"""Take each safeguard out again, and see which test notices: `python -m tests.mutations [NAME ...]`.

A safeguard is a place in the code, and what stands there without it. The checkout is copied, and the copy changed.
"""

import os
import re
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import altair  # noqa: F401  # of what the tests import, the part that takes seconds
import duckdb  # noqa: F401
import hypothesis  # noqa: F401
import pyarrow.parquet  # noqa: F401
import pytest
import ray  # noqa: F401
import s3fs  # noqa: F401
import torch  # noqa: F401
import torchvision  # noqa: F401
import vl_convert  # noqa: F401

from tests.support.checkout import ROOT

SOURCE = Path("pipeline/trapline")


@dataclass(frozen=True)
class Mutation:
    """A safeguard that is taken out.

    Attributes:
        name: of the safeguard.
        file: below `pipeline/trapline`.
        old: text that occurs there once.
        new: what takes its place.
        tests: arguments of pytest: what must notice.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def path(self) -> Path:
        """The file in a checkout."""
        return SOURCE / self.file


MUTATIONS = [
    # No wait without an end.
    Mutation("s3-deadline", "storage/s3.py", "with_deadline(as_asked(client._make_api_call))",
             "as_asked(client._make_api_call)",
             "tests/storage/test_deadlines.py -k 'request_ends and put' --timeout 20"),
    Mutation("http-deadline", "storage/filesystems.py", "    fs = _watched(fs)\n", "",
             "tests/storage/test_watched_loop.py -k 'server_ends and stat' --timeout 20"),
    Mutation("dribble", "storage/watched_loop.py", "ends = min(self.last, self.moved_at + self.silence)",
             "ends = self.moved_at + self.silence", "tests/storage/test_watched_loop.py -k 'server_ends and range' --timeout 20"),
    Mutation("budget-of-retries", "storage/retry.py", "if time.monotonic() + pause > latest:", "if False:",
             "tests/storage/test_retry.py"),
    Mutation("refusal-of-other-stores", "storage/retry.py", "        if refusal:\n", "        if False:\n",
             "tests/storage/test_retry.py"),
    Mutation("what-cannot-be-cancelled", "storage/deadlines.py", "wait([future], seconds)", "wait([future])",
             "tests/storage/test_deadlines.py -k left_behind --timeout 20"),
    Mutation("listing-in-a-circle", "storage/s3.py", "without_repetition(super()._iterdir(*args, **options))",
             "super()._iterdir(*args, **options)", "tests/storage/test_answers.py -k circle --timeout 20"),
    Mutation("page-that-leads-to-itself", "storage/answers.py", "if token and token ==", "if False and token ==",
             "tests/storage/test_answers.py -k circle --timeout 20"),
    # Bytes are those that were asked for.
    Mutation("ranges-of-s3", "storage/answers.py", "if first != int(asked_for[1]) or not", "if False and not",
             "tests/storage/test_answers.py"),
    Mutation("length-of-a-body", "storage/answers.py", "    if size is None and self._length is not None and", "    if False and",
             "tests/storage/test_answers.py"),
    Mutation("length-of-a-file", "storage/store.py", "    if len(data) == size:\n", "    if True:\n",
             "tests/storage/test_answers.py"),
    Mutation("result-replaced-since", "results/footer.py", "    if now.identity != entry.identity:\n", "    if False:\n",
             "tests/results/test_footer.py"),
    # A second opinion.
    Mutation("second-reading", "run/chunks.py", "twice = is_worthwhile(shard)", "twice = False",
             "tests/run/test_second_readings.py"),
    Mutation("readings-agree", "run/second_readings.py", "    if not same:\n", "    if False:\n",
             "tests/run/test_second_readings.py"),
    Mutation("second-break-agrees", "run/second_readings.py", "if missing or (", "if False and (",
             "tests/run/test_second_readings.py"),
    Mutation("second-connection", "run/second_readings.py", "    store.reconnect(shard.uri)\n", "",
             "tests/run/test_second_readings.py"),
    Mutation("md5-decides", "run/second_readings.py", "digest.hexdigest() == md5[1]", "False",
             "tests/run/test_second_readings.py"),
    Mutation("md5-is-compared", "run/second_readings.py", "digest.hexdigest() == md5[1]", "True",
             "tests/run/test_second_readings.py"),
    Mutation("input-that-changes", "storage/store.py", "    if now != identity:\n", "    if False:\n",
             "tests/storage/test_store.py"),
    Mutation("folder-that-changes", "sources/records.py", "if folder_identity(images, sidecars) != shard.identity:",
             "if False:", "tests/sources/test_records.py"),
    # Names stay names.
    Mutation("version-in-key", "storage/s3.py", 'before, mark, rest = path.partition("?versionId=")',
             'before, mark, rest = path, "", ""', "tests/storage/test_s3.py -k key_is_a_name"),
    Mutation("chain-of-filesystems", "storage/filesystems.py", 'if "://" not in url or url.startswith("file://"):',
             'if "://" not in url and "::" not in url:', "tests/storage/test_filesystems.py"),
    Mutation("long-names", "sources/shards.py", "if len(data) <= _LONGEST_NAME:", "if True:",
             "tests/sources/test_shards.py -k too_long"),
    Mutation("names-in-svg", "analysis/report/chart_style.py", "vegalite_to_svg(drawable(spec),", "vegalite_to_svg(spec,",
             "tests/analysis/report/test_chart_style.py"),
    Mutation("host-of-a-url", "storage/filesystems.py", "    if fs not in _AUTHORITIES:\n", "    if True:\n",
             "tests/storage/test_filesystems.py"),
    # Containers are counted.
    Mutation("count-of-parquet", "sources/parquet_images.py", "if count != self._sizes[group]:", "if False:",
             "tests/sources/test_parquet_images.py tests/sources/test_records.py"),
    Mutation("count-of-zip", "sources/zip_archive.py",
             "if problem is None and (place != len(raw) or len(entries) & 0xFFFF != count & 0xFFFF):", "if False:",
             "tests/sources/test_zip_archive.py"),
    # Memory is bounded.
    Mutation("kinds-of-a-shard", "sources/file_types.py", "len(ignored) >= _MAX_KINDS", "False",
             "tests/sources/test_file_types.py tests/sources/test_shards.py -k kinds"),
    Mutation("kinds-of-a-run", "run/tallies.py", "count_ignored(self.ignored, kind, number)", "self.ignored[kind] += number",
             "tests/run/test_tallies.py"),
    Mutation("images-of-a-shard", "sources/limits.py", "if self._images < 0:", "if False:", "tests/sources/test_limits.py"),
    Mutation("unpacked-bytes", "sources/limits.py", "if size > self._data_bytes:", "if False:",
             "tests/sources/test_limits.py tests/sources/test_records.py"),
    Mutation("metadata-bytes", "sources/limits.py", "if len(metadata) > self._metadata_bytes:", "if False:",
             "tests/sources/test_limits.py tests/sources/test_records.py"),
    Mutation("names-of-a-shard", "sources/limits.py", "if self._name_bytes < 0:", "if False:",
             "tests/sources/test_limits.py"),
    Mutation("columns-that-unpack", "sources/parquet_images.py",
             "if sizes[name] > limits.max_metadata_bytes(self._bytes)", "if False", "tests/sources/test_limits.py"),
    Mutation("bytes-of-an-image", "sources/limits.py", "    if size <= most:\n", "    if True:\n",
             "tests/sources/test_records.py tests/sources/test_limits.py"),
    Mutation("sidecar-in-a-column", "sources/records.py", "if metadata and len(metadata) > limits.MAX_SIDECAR_BYTES:",
             "if False:", "tests/sources/test_records.py tests/sources/test_limits.py"),
    Mutation("sidecar-beside-an-image", "sources/loose_images.py",
             "if each.sidecar and each.sidecar.size <= limits.MAX_SIDECAR_BYTES}", "if each.sidecar}",
             "tests/sources/test_records.py"),
    Mutation("frames-of-a-shard", "run/chunks.py", "if parts and self._parts > _MAX_PARTS:", "if False:",
             "tests/run/test_chunks.py"),
    Mutation("rows-of-a-chunk", "run/chunks.py", "or len(self.records) == _ROWS_PER_IMAGE * self.most", "or False",
             "tests/run/test_chunks.py"),
    # Side files are not trusted.
    Mutation("foreign-manifests", "run/manifest.py", "except (StorageError, ValueError, TypeError, KeyError, AttributeError):",
             "except StorageError:", "tests/run/test_manifest.py tests/run/test_heartbeat.py -k 'not s3 and not stores'"),
    Mutation("manifest-dated-ahead", "run/heartbeat.py", "abs(now - entry.modified) < _YOUNG",
             "now - entry.modified < _YOUNG", "tests/run/test_retention.py -k dated_ahead"),
    Mutation("temporary-of-a-live-run", "run/retention.py",
             'any(content["status"] == "running" for _, content in manifest.read(active))', "False",
             "tests/run/test_retention.py -k Among"),
    Mutation("own-results-as-input", "sources/own_results.py",
             "if _SIDE_FOLDER in entry.url or in_output or entry.url in results:", "if False:",
             "tests/sources/test_own_results.py"),
    Mutation("encrypted-parquet", "sources/parquet_images.py",
             "if footer_bytes == self._file.metadata.serialized_size + _SIGNATURE_BYTES:", "if False:",
             "tests/sources/test_parquet_images.py"),
    Mutation("unavailable-is-asked-again", "results/ledger.py",
             'elif result.unavailable and shard.format == "folder":', "elif False:",
             "tests/run/test_reuse.py"),
    Mutation("rescored-once", "results/ledger.py", ' and shard.format == "folder":', ":",
             "tests/analysis/rescoring/test_rescore.py -k unavailable"),
    Mutation("unavailable-sidecar", "sources/records.py",
             'identity = f"{each.image.identity} {UNAVAILABLE}"', "pass", "tests/run/test_reuse.py"),
    Mutation("still-unavailable", "run/workers.py", "previous.unavailable(shard) == footer.unavailable", "False",
             "tests/run/test_reuse.py"),
    Mutation("no-room-is-no-fault-of-a-clip", "sources/loose_images.py", " and not isinstance(error, NoRoom)", "",
             "tests/sources/test_loose_images.py"),
    Mutation("all-unavailable-is-an-error", "sources/loose_images.py", "            raise refusal\n", "            pass\n",
             "tests/sources/test_loose_images.py"),
    # No process outlives what it belongs to.
    Mutation("rays-processes-end-with-their-command", "ray_session.py", "    _starting.acquire()", "    pass",
             "tests/test_ray_session.py -k leaves_none"),
    Mutation("no-stand-in-outlives-its-raylet", "ray_processes.py", "open(0).read()", "import time; time.sleep(99)",
             "tests/test_ray_processes.py -k outlives"),
    Mutation("ray-starts-with-all-if-not-with-few", "ray_session.py", " and attempt == 1", "",
             "tests/test_ray_processes.py -k with_all"),
    Mutation("no-runtime-environment-without-its-agent", "ray_processes.py",
             "    worker._maybe_modify_runtime_env = lambda *_: None\n", "",
             "tests/test_ray_processes.py -k environment"),
    # Threads of a CPU.
    Mutation("threads-compute-alone", "model/cpu_threads.py", "    torch.set_num_threads(1)\n", "",
             "tests/model/test_cpu_threads.py -k alone"),
    Mutation("other-threads-compute-as-before", "model/cpu_threads.py", "            torch.set_num_threads(before)\n",
             "            pass\n", "tests/model/test_cpu_threads.py -k as_before"),
    Mutation("threads-that-are-refused", "model/cpu_threads.py", "            started.abort()", "            pass",
             "tests/model/test_cpu_threads.py -k refuses --timeout 20"),
    Mutation("threads-of-an-actor", "run/workers.py", "threads=CpuThreads(min(CPU_THREADS, usable_cpus()))",
             "threads=CpuThreads(1)", "tests/run/test_workers.py -k threads"),
    Mutation("next-chunk-at-hand", "run/ray_stream.py", "else 2\n", "else 1\n",
             "tests/run/test_ray_stream.py -k second_chunk"),
    Mutation("busy-counts-once", "model/gpu.py", "            if not self._calls:\n", "            if True:\n",
             "tests/model/test_gpu.py -k counted_once"),
    Mutation("ctrl-c-and-counts", "run/writer.py", "                self._threads.shutdown()\n",
             "                self.settle(at_most=0)\n", "tests/run/test_writer.py"),
    Mutation("result-as-shard", "sources/parquet_images.py", "if _RESULT_KEY in (self._file.metadata.metadata or {}):",
             "if False:", "tests/sources/test_parquet_images.py tests/sources/test_records.py"),
    Mutation("damaged-ledger-cache", "results/ledger.py", "except (pa.ArrowException, OSError, KeyError):",
             "except KeyError:", "tests/results/test_ledger.py -k cache"),
    Mutation("damaged-footer", "results/footer.py", "except (pa.ArrowException, OSError):", "except ZeroDivisionError:",
             "tests/results/test_footer.py tests/results/test_ledger.py"),
    Mutation("boxes-of-a-live-run", "run/retention.py", "in {*ended, None}]", "in {*runs, None}]",
             "tests/run/test_retention.py -k boxes"),
    Mutation("result-of-another-shard", "results/ledger.py", "    if result.shard != shard.uri:\n", "    if False:\n",
             "tests/results/test_ledger.py"),
    Mutation("second-copies", "results/ledger.py", "    _refuse_second_copies(shards, results, output)\n", "",
             "tests/results/test_ledger.py"),
    Mutation("whole-or-not-at-all", "storage/local.py", "beside = target.with_name(temporary_name())", "beside = target",
             "tests/storage/test_local.py -k 'breaks_off or takes_no_more'"),
    # Ray's end, and who may see.
    Mutation("ray-watch", "run/ray_watch.py", "self._on_loss(name)", "pass", "tests/run/test_ray_watch.py"),
    Mutation("userinfo", "errors.py", r'_QUERY.sub(r"\1?…", _USERINFO.sub(r"\1", text))', r'_QUERY.sub(r"\1?…", text)',
             "tests/test_errors.py"),
    Mutation("query-strings", "errors.py", r'_QUERY.sub(r"\1?…", _USERINFO.sub(r"\1", text))', r'_USERINFO.sub(r"\1", text)',
             "tests/test_errors.py"),
    Mutation("terminal", "display_text.py", "    return character.encode(", "    return character or character.encode(",
             "tests/test_display_text.py"),
    Mutation("secrets-in-errors", "errors.py", "return redacted(super().__str__())", "return super().__str__()",
             "tests/test_errors.py"),
    Mutation("secrets-in-image-errors", "errors.py", 'return redacted(f"{self.kind}: {self.message}")',
             'return f"{self.kind}: {self.message}"', "tests/test_errors.py"),
    Mutation("secrets-in-causes", "errors.py", 'redacted(" ".join(str(error).split()))', '" ".join(str(error).split())',
             "tests/test_errors.py"),
    Mutation("secrets-in-manifest", "run/progress.py", "return redacted(value) if isinstance(value, str) else value",
             "return value", "tests/run/test_progress.py"),
    Mutation("secrets-in-options", "cli/run_job.py", "display_text(redacted(message))", "display_text(message)",
             "tests/cli/test_run_job.py"),
    Mutation("error-on-a-terminal", "cli/run_job.py", "display_text(redacted(message))", "redacted(message)",
             "tests/cli/test_run_job.py"),
    Mutation("name-in-a-listing", "analysis/search/listing.py", "return display_text(str(value))", "return str(value)",
             "tests/analysis/search/test_listing.py"),
    Mutation("formula-in-csv", "analysis/search/listing.py",
             '_for_spreadsheets(connection, query) if name == "csv" else query', "query",
             "tests/analysis/search/test_listing.py"),
    Mutation("report-reads-own-shards", "analysis/report/thumbnails.py",
             "if shards is not None and shard not in shards:", "if False:",
             "tests/analysis/report/test_thumbnails.py -k ledger"),
    Mutation("report-reads-archives", "analysis/report/thumbnails.py",
             "if shards is not None and scheme not in _SCHEMES:", "if False:",
             "tests/analysis/report/test_thumbnails.py -k ledger"),
    Mutation("report-shows-the-same", "analysis/report/thumbnails.py",
             "if digest != picture.content_sha256:", "if False:",
             "tests/analysis/report/test_thumbnails.py -k 'not s3'"),
    Mutation("rows-as-the-footer-says", "analysis/dataset.py", "    if found != said:\n", "    if False:\n",
             "tests/analysis/test_dataset.py -k 'not s3'"),
    # Every picture read right, or named.
    Mutation("zeros-in-a-scan", "decoding/decode.py", "reason = jpeg.blank_stretch(data, header)", "reason = None",
             "tests/decoding/test_jpeg.py -k Zeros"),
    Mutation("next-file's-bytes", "decoding/decode.py", "broken_off or jpeg.runs_on(data, header)", "broken_off",
             "tests/decoding/test_jpeg.py"),
    Mutation("hard-links", "sources/tar_archive.py", "yield targets.link(member)", "continue",
             "tests/sources/test_tar_archive.py"),
    Mutation("junk-folders", "sources/file_types.py",
             "next((folder for folder in folders if _is_junk_folder(folder)), None)", "None",
             "tests/sources/test_file_types.py"),
    Mutation("encoding-of-sidecars", "sources/sidecars.py", "json.detect_encoding(data)", '"utf-8"',
             "tests/sources/test_sidecars.py"),
    Mutation("nan-in-metadata", "sources/sidecars.py", "return value if value - value == 0 else None", "return value",
             "tests/sources/test_sidecars.py tests/sources/test_parquet_images.py"),
    Mutation("gps-seconds", "decoding/exif.py", " if not isnan(part))", ")", "tests/decoding/test_exif.py"),
    Mutation("detector-nan-in-names", "detections/json_stream.py", "            if self._in_string:\n",
             "            if False:\n", "tests/detections/test_json_stream.py"),
    Mutation("detector-composed-names", "detections/shard_boxes.py",
             "name = self._composed.get(nfc, name)", "pass",
             "tests/detections/test_shard_boxes.py"),
    Mutation("clips-left-out", "results/footer.py", "or (CLIP_SUFFIXES | {OTHER}) & self.ignored.keys()", "",
             "tests/results/test_footer.py"),
    Mutation("data-beside-frames", "decoding/frames.py", "    _know_all_side_data()\n", "",
             "tests/decoding/test_frames.py"),
    Mutation("same-words-of-two-clips", "decoding/clip_reading.py", "    av.logging.set_skip_repeated(False)\n", "",
             "tests/decoding/test_clips.py"),
    Mutation("joined-recordings", "decoding/frame_times.py", "    return shifts.cumsum()\n",
             "    return np.zeros(len(stored))\n", "tests/decoding/test_frame_times.py"),
    Mutation("disk-under-a-clip", "decoding/watched_file.py", "        if self._error:\n", "        if False:\n",
             "tests/decoding/test_watched_file.py"),
    Mutation("order-of-storage", "decoding/frame_times.py", "if not self._times.by_place:", "if True:",
             "tests/decoding/test_frame_times.py"),
    Mutation("lost-frames", "decoding/frame_times.py", "if self._times.keys_in_step and frame.key_frame", "if False",
             "tests/decoding/test_frame_times.py"),
    Mutation("detector-far-frames", "decoding/crops.py", "if round(float(distances.min()), 2) > FARTHEST_FRAME:",
             "if False:", "tests/decoding/test_crops.py -k Frames"),
    Mutation("clip-crops-alone", "results/clip_pooling.py", "dict(sorted(added))", "dict(added)",
             "tests/results/test_clip_pooling.py"),
    Mutation("detector-images-lacking", "run/chunks.py", "if detected and detected.all_matched and unmatched",
             "if False and detected and unmatched", "tests/run/test_chunks.py -k Detector"),
    Mutation("broken-shard-exit-code", "run/progress.py", "if self.shards.failures or self.shards.broken:",
             "if self.shards.failures:", "tests/run/test_progress.py"),
]  # fmt: skip


def noticed(mutation: Mutation, folder: Path) -> str | None:
    """Return the first test that fails without a safeguard, in a copy of the checkout; None where none does."""
    path = folder / mutation.path
    text = path.read_text()
    path.write_text(text.replace(mutation.old, mutation.new))
    log = folder / "mutation.log"
    child = os.fork()  # torch, Ray and others are imported already: 2 s instead of 12
    if child == 0:
        _run(mutation, folder, log)
    _, status = os.waitpid(child, 0)
    path.write_text(text)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", log.read_text(), re.MULTILINE)
    if failed:
        return failed[1].partition("/")[2]
    # 5: nothing was selected.
    return None if os.waitstatus_to_exitcode(status) in (0, 5) else f"pytest ended with status {status}"


def _run(mutation: Mutation, folder: Path, log: Path) -> NoReturn:
    """Run the tests of a mutation in this process, with the copy's modules, and end it."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "trapline", "jobs")]:
        del sys.modules[name]
    os.chdir(folder)
    sys.path[:0] = places = [str(folder), str(folder / "pipeline")]
    os.environ["PYTHONPATH"] = os.pathsep.join(places)  # for the processes that tests start
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    options = "-n 0 -x -q --tb=no -rfE -p no:cacheprovider"
    os._exit(pytest.main([*options.split(), "-m", "not slow", *shlex.split(mutation.tests)]))


def main(names: list[str]) -> int:
    """Try the named safeguards, or all; print a table; return how many were missed."""
    missed = 0
    with tempfile.TemporaryDirectory(prefix="trapline-mutations-") as place:
        folder = Path(place) / "checkout"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "shared"))
        for mutation in MUTATIONS:
            if not names or mutation.name in names:
                test = noticed(mutation, folder)
                missed += test is None
                print(f"{mutation.name:28} {test or 'NOT NOTICED'}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

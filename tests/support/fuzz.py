"""Coverage-guided fuzzing of what reads strangers' bytes; not a part of the suite. What it finds becomes a test there.

    pip install atheris
    python tests/support/fuzz.py tar CORPUS -max_total_time=600

The first argument is a key of `SEEDS`, the second a folder that fills with inputs; what follows is libFuzzer's.
"""

import gzip
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["trapline", "tarfile", "gzip", "PIL"]):
    from tests.support.archives import jpeg, write_parquet
    from tests.support.reading import read_bytes, tar_bytes, zip_bytes
    from trapline.decoding.decode import decode

SCRATCH = Path(tempfile.mkdtemp(dir="/dev/shm"))
MEMBERS = {"a.jpg": b"a" * 20, "a.json": b"{}", f"{'long/' * 30}b.jpg": b"b"}
SEEDS = {
    "tar": tar_bytes(MEMBERS),
    "tar.gz": gzip.compress(tar_bytes(MEMBERS)),
    "zip": zip_bytes(MEMBERS),
    "parquet": write_parquet(SCRATCH / "seed.parquet", MEMBERS).read_bytes(),
    "image": jpeg(1, (24, 16)),
}


def main(kind: str, corpus: str, *options: str) -> None:
    """Fuzz one kind until an input breaks its contract, takes more than 10 s, or more than 2 GB."""
    Path(corpus).mkdir(parents=True, exist_ok=True)
    (Path(corpus) / "seed").write_bytes(SEEDS[kind])

    def archive(data: bytes) -> None:
        read_bytes(SCRATCH, f"a.{kind}", data)

    def image(data: bytes) -> None:
        pixels, facts = decode(data, (32, 32))
        assert (pixels is None) == (facts.status == "failed")
        assert (facts.error is None) == (facts.status == "ok")

    limits = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=100000"]
    atheris.Setup([sys.argv[0], corpus, *limits, *options], image if kind == "image" else archive)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

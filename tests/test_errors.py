import inspect
import pickle
import re

import pytest

from trapline import errors
from trapline.errors import ImageError, PermanentError, StorageError, TraplineError, in_one_line, redacted

CLASSES = dict(inspect.getmembers(errors, inspect.isclass))


def test_the_tree_at_the_top_of_the_file_is_the_hierarchy() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for indent, name in re.findall(
        r"^    ([├└│─ ]*)(\w+?Error|ShardBroken|OutputConflict)\b", errors.__doc__ or "", re.M
    ):
        above[len(indent) // 4 :] = [name]
        drawn[name] = above[-2] if len(above) > 1 else "Exception"
    assert drawn == {name: kind.__base__.__name__ for name, kind in CLASSES.items()}


def test_an_image_error_reads_as_kind_and_message() -> None:
    error = ImageError("empty", "the file has no bytes")
    assert str(error) == "empty: the file has no bytes"
    assert isinstance(error, PermanentError)


def test_errors_survive_the_way_from_worker_to_driver() -> None:
    for kind in CLASSES.values():
        error = kind("empty", "no bytes") if kind is ImageError else kind("a.tar: gone; bring it back")
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (kind, str(error), vars(error))
        assert isinstance(copy, TraplineError)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass@host/m.pt", "https://host/m.pt"),
        ("https://token@host", "https://host"),
        ("sftp://me:p@ss:word@host/a", "sftp://host/a"),
        ("https://host/m.pt?X-Amz-Signature=abc&b=c", "https://host/m.pt?…"),
        ("HTTPS://u:p@host/m.pt?sig=1: not found", "HTTPS://host/m.pt?…: not found"),
        ("simplecache::https://u:p@host/m.pt?sig=1", "simplecache::https://host/m.pt?…"),
        (
            "404, message='Not Found', url='https://u:p@host/a?b=c' (again)",
            "404, message='Not Found', url='https://host/a?…' (again)",
        ),
        # Names of files, accounts of Azure, addresses of mail.
        ("s3://bucket/a+b?.tar", "s3://bucket/a+b?.tar"),
        ("s3://bucket/me@home/a.tar", "s3://bucket/me@home/a.tar"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        ("az://container@account.blob.core.windows.net/a", "az://container@account.blob.core.windows.net/a"),
        ("/data/what?/me@home.tar", "/data/what?/me@home.tar"),
        ("mail -s done me@host", "mail -s done me@host"),
    ],
)
def test_secrets_of_urls_are_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert str(StorageError(text)) == str(ImageError("x", text)).removeprefix("x: ") == shown
    assert in_one_line(OSError(text)) == shown
    assert redacted(shown) == shown


def test_an_error_without_words_is_called_by_its_name() -> None:
    assert in_one_line(TimeoutError()) == "TimeoutError"

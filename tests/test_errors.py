import inspect
import pickle
import re

from trapline import errors
from trapline.errors import ImageError, PermanentError, TraplineError

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

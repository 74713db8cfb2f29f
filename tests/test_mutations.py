"""The list of safeguards is of this code: each text occurs once, and its tests exist."""

import pytest

from tests.mutations import MUTATIONS, Mutation
from tests.support.checkout import ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_safeguard_is_where_the_list_says(mutation: Mutation) -> None:
    assert (ROOT / mutation.path).read_text().count(mutation.old) == 1
    assert mutation.new != mutation.old
    files = mutation.tests.split(" -k ")[0].split(" --")[0].split()
    assert all((ROOT / file).is_file() for file in files)


def test_each_has_a_name_of_its_own() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)

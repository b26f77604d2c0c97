"""docs/tested-versions.txt: dated, and with every package that the tests ask for."""

import re

import pytest
from packaging.requirements import Requirement

from benchmarks.tested_versions import FILE, ROOT, files_of_make_test, installed, required, requirements


def listed() -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", FILE.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_list_is_dated_and_has_pinned_versions_alone():
    head, *rest = FILE.read_text(encoding="utf-8").splitlines()
    assert re.search(r"on 20\d\d-\d\d-\d\d: Python 3\.\d+\.\d+, ", head)
    assert [line for line in rest if not re.fullmatch(r"#.*|[\w.-]+==[\w.+!-]+", line)] == []


@pytest.mark.parametrize("file", files_of_make_test(), ids=lambda file: file.stem)
def test_every_requirement_is_in_it_with_a_version_that_fits(file):
    assert file.exists()
    versions = listed()
    for one in requirements(file):
        version = versions.get(one.name.lower().replace("_", "-"))
        assert version, f"{one.name} of {file.name} is not in {FILE.name}: python -m benchmarks.tested_versions --write"
        assert one.specifier.contains(version, prereleases=True), f"{file.name} wants {one}, tested was {version}"


def test_what_make_test_installs_is_read_from_the_makefile():
    names = {file.name for file in files_of_make_test()}
    assert {"requirements.txt", "requirements-dev.txt", "requirements-export.txt"} <= names
    assert all((ROOT / name).exists() for name in names)


def test_what_is_installed_is_followed():
    assert installed([]) == {}
    found = installed([Requirement("pandas")])
    assert {"pandas", "numpy", "python-dateutil", "six"} - found.keys() <= {"six"}  # newer dateutils do without
    assert "pytest" not in found


@pytest.mark.parametrize(
    ("line", "extras", "count"),
    [("a", set(), 1), ("a; extra == 'x'", set(), 0), ("a; extra == 'x'", {"x"}, 1), ("a; os_name == 'none'", set(), 0)],
)
def test_markers_decide_what_is_required(line, extras, count):
    assert len(list(required([line], extras))) == count

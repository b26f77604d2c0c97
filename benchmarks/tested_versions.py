"""Write docs/tested-versions.txt: the versions of all packages that the tests run with, for those who audit them or
want the same ones.

    python -m benchmarks.tested_versions            shows them
    python -m benchmarks.tested_versions --write    writes them, after `make test` has passed

Not the limits of what can be installed: those are in requirements*.txt.
"""

import argparse
import datetime
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils.files import ROOT

FILE = ROOT / "docs" / "tested-versions.txt"
HEAD = """# Versions that `make test` passed with on {date}: Python {python}, {system}.
# Made by `python -m benchmarks.tested_versions --write`; `make audit` looks them up in a database of vulnerabilities.
# The same ones: pip install -r requirements.txt -c docs/tested-versions.txt
"""


def files_of_make_test() -> list[Path]:
    """The requirements files that `make test` installs, as the Makefile lists them."""
    rule = re.search(
        r"^EXTRAS := .*?requirements-,([^)]*)\)", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL
    )
    names = rule[1].replace("\\", " ").split()
    return [ROOT / "requirements.txt", *(ROOT / f"requirements-{name}" for name in names)]


def requirements(file: Path) -> list[Requirement]:
    """The requirements of a file, those for other systems left out."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    found = [Requirement(line) for line in lines if line]
    return [one for one in found if not one.marker or one.marker.evaluate()]


def installed(wanted: list[Requirement]) -> dict[str, str]:
    """{name: version} of the requirements and all that these require in turn. Raises PackageNotFoundError for a missing
    requirement of ours."""
    versions: dict[str, str] = {}
    waiting, seen = [(one, True) for one in wanted], set()
    while waiting:
        one, ours = waiting.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            package = distribution(one.name)
        except PackageNotFoundError:
            if ours:
                raise
            continue  # for another system, or replaced by a package of another name
        versions[key[0]] = package.version
        waiting.extend((inner, False) for inner in required(package.requires or [], one.extras))
    return dict(sorted(versions.items()))


def required(lines: list[str], extras: set[str]) -> Iterator[Requirement]:
    """What a package requires here, with the extras asked for."""
    for line in lines:
        one = Requirement(line)
        if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield one


def text() -> str:
    """The file's content."""
    wanted = [one for file in files_of_make_test() for one in requirements(file)]
    head = HEAD.format(
        date=datetime.date.today().isoformat(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
    )
    return head + "".join(f"{name}=={version}\n" for name, version in installed(wanted).items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {FILE.relative_to(ROOT)} (default: show it)")
    content = text()
    if parser.parse_args().write:
        FILE.write_text(content, encoding="utf-8")
        print(f"{FILE.relative_to(ROOT)}: {content.count('==')} packages")
    else:
        print(content, end="")


if __name__ == "__main__":
    main()

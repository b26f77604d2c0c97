"""What the pages say: their commands have flags that exist, their links lead somewhere."""

import importlib.util
import re
import shlex
from functools import cache
from urllib.parse import unquote

import pytest

from tests.conftest import ROOT
from tests.test_architecture import listed

PAGES = [name for name in listed("*.md") if not name.startswith((".github/", "tests/"))]
COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*python (train|val|detect|export|serve)\.py\b(.*)$", re.M)
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands(page: str) -> list[tuple[str, str]]:
    """(script, arguments) of each line of a bash block that calls one of our scripts."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text(page), re.M | re.S)
    return [found for block in blocks for found in COMMAND.findall(block)]


@cache
def parser(script: str):
    spec = importlib.util.spec_from_file_location(f"script_{script}", ROOT / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_parser()


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_have_flags_that_exist(page):
    for script, arguments in commands(page):
        words = shlex.split(arguments.replace("...", ""), comments=True)
        try:
            parser(script).parse_args(words)
        except SystemExit:
            pytest.fail(f"{page}: {script}.py does not take {words}")


def anchors(page: str) -> set[str]:
    """What GitHub calls the page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text(page), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for found in LINK.findall(re.sub(r"`[^`\n]*`", "", text(page))):
        target, _, anchor = unquote(found[0] or found[1]).partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = ((ROOT / page).parent / target) if target else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(file.resolve().relative_to(ROOT).as_posix()), f"{page} links to #{anchor}"


def test_no_page_names_a_machine():
    """Of one's own: paths, hosts."""
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:home|work/|root)\b", text(page)), page

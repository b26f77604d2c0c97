"""The files around the code: version, citation, workflow, image, hooks. What they name must be there."""

import re
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT
from tests.test_architecture import listed
from utils import __version__


def content(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_has_one_place():
    answer = subprocess.run(
        [sys.executable, "-c", "import utils; print(utils.__version__)"], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.stdout.strip() == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert 'version = { attr = "utils.__version__" }' in content("pyproject.toml")
    assert not re.search(r'^version = "', content("pyproject.toml"), re.M)


def test_the_citation_and_the_release_notes_tell_it_too():
    citation = yaml.safe_load(content("CITATION.cff"))
    assert citation["version"] == __version__
    assert "arXiv:1912.03458" in content("CITATION.cff")
    assert re.search(r"^## (\d+\.\d+\.\d+)", content("CHANGELOG.md"), re.M)[1] == __version__


def test_the_workflow_runs_what_contributors_run():
    text = content(".github/workflows/ci.yml")
    workflow = yaml.safe_load(text)
    job = workflow["jobs"]["test"]
    assert workflow["permissions"] == {"contents": "read"}
    assert len(job["strategy"]["matrix"]["os"]) == 3
    assert len(job["strategy"]["matrix"]["python"]) == 2
    assert any(step.get("run", "").startswith("make test") for step in job["steps"])
    uses = [step["uses"] for step in job["steps"] if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in uses)
    oldest = re.search(r'requires-python = ">=([\d.]+)"', content("pyproject.toml"))[1]
    assert oldest in job["strategy"]["matrix"]["python"]


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_an_issue_form_can_be_filled_in(name):
    form = yaml.safe_load(content(f".github/ISSUE_TEMPLATE/{name}.yml"))
    assert form["name"]
    assert form["description"]
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    assert fields
    assert all(item["attributes"]["label"] for item in fields)
    assert len({item["id"] for item in fields}) == len(fields)


def test_what_the_templates_name_is_there():
    for name in [*listed(".github/*"), ".pre-commit-config.yaml", "Dockerfile"]:
        for path in re.findall(r"\b(?:docs|tests)/[\w/]+\.(?:md|py)\b", content(name)):
            assert (ROOT / path).is_file(), f"{name} names {path}"


def test_the_hooks_are_pinned():
    for repository in yaml.safe_load(content(".pre-commit-config.yaml"))["repos"]:
        assert repository["repo"] == "local" or re.fullmatch(r"v\d+\.\d+\.\d+", repository["rev"])


def test_the_image_has_no_more_than_it_needs():
    lines = content("Dockerfile").splitlines()
    copied = [word for line in lines if line.startswith("COPY requirements") for word in line.split()[1:-1]]
    assert copied
    assert all((ROOT / name).is_file() for name in copied)
    assert "USER 1000" in lines
    for script in re.findall(r"/app/(\w+\.py)", content("Dockerfile")):
        assert (ROOT / script).is_file()
    assert {".git", ".venv*", "runs", "datasets"} <= set(content(".dockerignore").split())


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs git, to tell the project's files from others")
def test_no_tracked_file_is_large():
    large = [name for name in listed("*") if (ROOT / name).stat().st_size > 700_000 and "golden" not in name]
    assert not large

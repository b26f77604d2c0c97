"""The description of the API, and the page that shows it."""

import re
from html import escape

import pytest

from tests.conftest import ROOT
from tests.serving import SURE, made_service, picture, running, tiny_weights

httpx = pytest.importorskip("httpx", reason="needs requirements-dev.txt")
pytest.importorskip("fastapi", reason="needs requirements-serve.txt")

from engine.service_options import PARSERS  # noqa: E402  (these need what is asked for above)
from engine.service_schema import ANSWER, FIELDS, STATUSES, DetectAnswer  # noqa: E402


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with running(made_service([tiny_weights(tmp_path_factory.mktemp("weights") / "best.pt")])) as address:
        yield address


def test_the_description_and_its_page_name_all_routes_and_no_other_host(address):
    description = httpx.get(f"{address}/openapi.json").json()
    assert set(description["paths"]) == {"/healthz", "/v1/models", "/v1/detect"}
    page = httpx.get(f"{address}/docs").text
    for path in description["paths"]:
        assert path in page
    for field, what, default in (
        ("conf", "number, 0 to 1: confidence that", "0.25"),
        ("classes", "string: names or numbers", "all"),
        ("max_det", "integer, 1 to 3000: detections", "300"),
        ("pictures", "list of files: BMP, ", "needed"),
        ("truncated", "boolean: the file ends too early", ""),
        ("detections", "list of <a href='#Detection'>Detection</a>", ""),
        ("xyxyn", "list of numbers: the same as fractions", ""),
    ):
        row = re.search(f"<tr><td><code>{field}</code><td>(.*?)</tr>", page)[1]
        assert row.startswith(what)
        assert row.endswith(f"<td>{default}") or not default
    for status, when in STATUSES.items():
        assert f"<td>{status}<td>{escape(when)}</tr>" in page
    assert f"curl -F pictures=@bus.jpg {address}/v1/detect" in page
    assert "&quot;weights&quot;: [0.31, 0.22, 0.27, 0.2]" in page
    assert "<script" not in page
    assert "//" not in page.replace(address, "")


def test_the_page_has_the_errors_that_the_manual_has():
    manual = (ROOT / "docs" / "service.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \|", manual, re.MULTILINE)
    assert [int(status) for row in rows for status in row.split(",")] == list(STATUSES)
    assert STATUSES[404] == "no such model or path"


def test_the_description_is_that_of_what_is_answered(address):
    """Its example has the fields of its answer, and an answer those of the example; its form those that are read."""
    assert DetectAnswer.model_validate(ANSWER, strict=True).model_dump(by_alias=True) == ANSWER
    asked = {**SURE, "attention": "true"}
    answer = httpx.post(f"{address}/v1/detect", files={"pictures": picture()}, data=asked, timeout=60).json()
    for path in (
        (),
        ("pictures", 0),
        ("pictures", 0, "detections", 0),
        ("pictures", 0, "attention", 0),
        ("timings_ms",),
    ):
        told, shown = answer, ANSWER
        for step in path:
            told, shown = told[step], shown[step]
        assert told.keys() == shown.keys()
    assert set(FIELDS) == {"pictures", *PARSERS}


def test_the_python_of_the_page_runs(address, tmp_path, monkeypatch, capsys):
    pytest.importorskip("requests", reason="needs the package requests")
    description = httpx.get(f"{address}/openapi.json").json()
    (source,) = (
        sample["source"]
        for sample in description["paths"]["/v1/detect"]["post"]["x-codeSamples"]
        if sample["lang"] == "Python"
    )
    (tmp_path / "bus.jpg").write_bytes(picture(".jpg"))
    monkeypatch.chdir(tmp_path)
    exec(compile(source.replace("http://127.0.0.1:8000", address).replace("0.4", "0.001"), "sample", "exec"), {})
    assert capsys.readouterr().out.startswith("bus.jpg ")

"""The service's API, over HTTP on the loopback interface."""

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

import serve
from tests.serving import SIDE, STATIC_CFG, SURE, made_service, picture, raw, running, tiny_weights

httpx = pytest.importorskip("httpx", reason="needs requirements-dev.txt")
pytest.importorskip("fastapi", reason="needs requirements-serve.txt")

from engine import service as service_module  # noqa: E402  (it needs what is asked for above)

CV_TELLS = int(cv2.__version__.partition(".")[0]) >= 5  # of files that end too early


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    runs = [folder / run / "weights" for run in ("first", "second")]
    for run in runs:
        run.mkdir(parents=True)
    return [tiny_weights(runs[0] / "best.pt"), tiny_weights(runs[1] / "best.pt", STATIC_CFG)]


@pytest.fixture(scope="module")
def service(files):
    return made_service(files, pictures=3, bytes=200_000, pixels=100_000)


@pytest.fixture(scope="module")
def address(service):
    with running(service) as address:
        yield address


def sent(address, *contents, name="a.png", client=httpx, **fields):
    pictures = [("pictures", (name, content)) for content in contents]
    return client.post(f"{address}/v1/detect", files=pictures, data=fields, timeout=60)


# ------------------------------------------------------------------------------------------------------------ answers
def test_health_and_models(address):
    assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
    told = httpx.get(f"{address}/v1/models").json()
    assert told["limits"] == {"pictures": 3, "bytes": 200_000, "pixels": 100_000}
    dynamic, static = told["models"]
    assert (dynamic["id"], static["id"]) == ("first/best", "second/best")
    assert dynamic["file"] == static["file"] == "best.pt"  # no folder of this machine
    assert dynamic["dynamic_layers"] == [{"name": "model.4", "kernels": 4}]
    assert static["dynamic_layers"] == []
    assert dynamic["parameters"] > static["parameters"] > 0
    for model in told["models"]:
        assert model["imgsz"] == [SIDE, SIDE]
        assert model["classes"] == ["square", "bar"]
        assert model["task"] == "detect"


def test_a_picture_is_answered_with_its_boxes(address):
    answer = sent(address, picture(size_wh=(90, 50)), name="ü/../b.png", **SURE, max_det="7").json()
    assert answer["model"] == "first/best"
    (found,) = answer["pictures"]
    assert (found["filename"], found["width"], found["height"]) == ("b.png", 90, 50)
    assert "attention" not in found
    assert len(found["detections"]) == 7
    confidences = [box["confidence"] for box in found["detections"]]
    assert confidences == sorted(confidences, reverse=True)
    for box in found["detections"]:
        x1, y1, x2, y2 = box["xyxy"]
        assert 0 <= x1 <= x2 <= 90
        assert 0 <= y1 <= y2 <= 50
        np.testing.assert_allclose(box["xyxyn"], [x1 / 90, y1 / 50, x2 / 90, y2 / 50], atol=2e-4)
        assert box["name"] == ["square", "bar"][box["class"]]
        assert box["xyxy"] == [round(value, 2) for value in box["xyxy"]]
        assert box["confidence"] == float(np.float32(box["confidence"]))  # as the network has it
    assert set(answer["timings_ms"]) == {"decode", "queue", "inference", "nms", "total"}
    assert 0 < answer["timings_ms"]["inference"] <= answer["timings_ms"]["total"]


def test_boxes_are_those_of_detect(address, files, tmp_path):
    import detect

    for number, size_wh in enumerate([(48, 32), (20, 100), (64, 64), (1, 1), (300, 7)]):
        content = picture(size_wh=size_wh, seed=number)
        (tmp_path / f"{number}.png").write_bytes(content)
        answer = sent(address, content, **SURE, max_det="50").json()["pictures"][0]
        expected = [[*map(round, box["xyxy"]), box["class"]] for box in answer["detections"]]
        detect.run(
            weights=str(files[0]), source=str(tmp_path / f"{number}.png"), imgsz=[SIDE], conf_thres=0.001, max_det=50,
            device="cpu", save_json=True, nosave=True, project=tmp_path, name=f"exp{number}",
        )  # fmt: skip
        rows = json.loads((tmp_path / f"exp{number}" / "predictions.json").read_text())
        got = [[x, y, x + w, y + h, row["category_id"]] for row in rows for x, y, w, h in [row["bbox"]]]
        assert len(got) == len(expected)
        np.testing.assert_allclose(sorted(got), sorted(expected), atol=1)


def test_pictures_of_a_request_keep_their_order_and_are_answered_as_if_alone(address):
    contents = [picture(size_wh=(48, 32), seed=1), picture(size_wh=(32, 48), seed=2), picture(size_wh=(48, 32), seed=3)]
    together = sent(address, *contents, **SURE).json()["pictures"]
    alone = [sent(address, content, **SURE).json()["pictures"][0] for content in contents]
    for one, other in zip(together, alone, strict=True):
        assert len(one["detections"]) == len(other["detections"]) > 0
        boxes = [[box["xyxy"] for box in found["detections"]] for found in (one, other)]
        np.testing.assert_allclose(*boxes, atol=0.05)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [({"classes": "bar"}, {"bar"}), ({"classes": "0"}, {"square"}), ({"classes": "0,bar"}, {"square", "bar"})],
)
def test_classes_are_chosen_by_name_or_number(address, fields, kept):
    found = sent(address, picture(), **SURE, **fields).json()["pictures"][0]["detections"]
    assert {box["name"] for box in found} <= kept
    assert found


def test_thresholds_count(address):
    def count(**fields):
        return len(sent(address, picture(), max_det="3000", **fields).json()["pictures"][0]["detections"])

    assert count(conf="0.9") == 0
    assert count(conf="0.001", iou="0.1") < count(conf="0.001", iou="0.9")


def test_attention_is_told_of_dynamic_layers_where_asked_for(address):
    both = sent(address, picture(seed=1), picture(seed=2), attention="true", model="first/best").json()["pictures"]
    for found in both:
        (layer,) = found["attention"]
        assert layer["layer"] == "model.4"
        assert len(layer["weights"]) == 4
        assert sum(layer["weights"]) == pytest.approx(1, abs=1e-5)
    assert both[0]["attention"] != both[1]["attention"]
    again = sent(address, picture(seed=2), attention="true").json()["pictures"][0]["attention"]
    np.testing.assert_allclose(again[0]["weights"], both[1]["attention"][0]["weights"], atol=1e-5)
    static = sent(address, picture(), attention="true", model="second/best").json()
    assert static["model"] == "second/best"
    assert "attention" not in static["pictures"][0]


# ------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("contents", "fields", "status", "told"),
    [
        ([], {}, 415, "a body of multipart/form-data was expected"),
        ([b""], {}, 415, "a.png: a picture"),
        ([b"text"], {}, 415, "a.png: a picture"),
        ([picture(), b"text"], {}, 415, "a.png: a picture"),
        ([picture()], {"conf": "2"}, 400, "conf: a number from 0 to 1 was expected, got '2'"),
        ([picture()], {"classes": "cat"}, 400, "classes: expected numbers or names of 0 square, 1 bar, got 'cat'"),
        ([picture()], {"model": "worst"}, 404, "model: one of first/best, second/best was expected, got 'worst'"),
        ([picture()], {"size": "640"}, 422, "got 'size'"),
        ([], {"conf": "1"}, 415, "got 'application/x-www-form-urlencoded'"),
        ([picture()] * 4, {}, 413, "at most 3 pictures"),
        ([picture(".bmp", (400, 300))], {}, 413, "at most 200000 bytes"),
        ([picture(".jpg", (400, 300))], {}, 413, "a.png: at most 100000 pixels"),
    ],
)
def test_errors_are_a_status_and_a_sentence(address, contents, fields, status, told):
    answer = sent(address, *contents, **fields)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert told in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", "/v1/detect", 405, "'/v1/detect': the method POST was expected, got GET"),
        ("PUT", "/v1/detect", 405, "got PUT"),
        ("A" * 500, "/v1/detect", 405, f"got {'A' * 60}..."),
        ("DELETE", "/v1/models", 405, "'/v1/models': the method GET was expected, got DELETE"),
        ("POST", "/healthz", 405, "got POST"),
        ("POST", "/page/main.js", 405, "'/page/main.js': the method GET, HEAD was expected, got POST"),
        (
            "GET",
            "/v1/nothing",
            404,
            "one of GET /, GET /docs, GET /healthz, GET /openapi.json, POST /v1/detect, GET /v1/models was",
        ),
        ("GET", "/v1/nothing", 404, "expected, got GET '/v1/nothing'"),
        ("GET", "/page/../serve.py", 404, "got GET '/page/../serve.py'"),
        ("GET", "/page/%2e%2e/server.py", 404, "got GET '/page/../server.py'"),
        ("GET", "/page//etc/passwd", 404, "got GET '/page//etc/passwd'"),
        ("GET", "/%1b[31m%0a%e2%80%ae", 404, r"got GET '/\x1b[31m\n\u202e'"),
        ("GET", f"/{'x' * 500}", 404, f"got GET '/{'x' * 59}...'"),
        ("POST", "/v1/object-detection/yolov5s", 404, "got POST '/v1/object-detection/yolov5s'"),
        ("OPTIONS", "/v1/detect", 405, "got OPTIONS"),
    ],
)
def test_paths_and_methods_that_there_are_not(address, method, path, status, told):
    came = raw(address, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert came[0] == status
    assert told in json.loads(came[1].rpartition(b"\r\n\r\n")[2])["error"]
    assert b"access-control" not in came[1].lower()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example"}, 400),
        ({"Host": "evil.example:127.0.0.1"}, 400),
        ({"Host": "["}, 400),
        ({"Host": ""}, 400),
        ({"Origin": "{address}"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
    ],
)
def test_requests_of_other_pages_and_under_other_names_are_refused(address, headers, status):
    filled = {name: value.format(address=address) for name, value in headers.items()}
    answer = httpx.post(f"{address}/v1/detect", files={"pictures": picture()}, headers=filled)
    assert answer.status_code == status, answer.text


def test_every_answer_keeps_the_browser_at_home(address):
    for path in ("/", "/docs", "/healthz", "/nothing"):
        headers = httpx.get(f"{address}{path}").headers
        assert "http" not in headers["content-security-policy"]
        assert headers["content-security-policy"].startswith("default-src ")
        assert headers["x-content-type-options"] == "nosniff"


# -------------------------------------------------------------------------------------------------------- concurrency
def test_concurrent_requests_share_batches(files):
    """While the thread is held in a first batch, others gather; all of them are answered as they are alone."""
    service = made_service(files[:1], max_batch=8)
    batcher = service.batchers["first/best"]
    held, go, answer = threading.Event(), threading.Event(), batcher._answer

    def slow(jobs, waited):
        held.set()
        assert go.wait(60)
        return answer(jobs, waited)

    batcher._answer = slow
    with running(service) as address, ThreadPoolExecutor(9) as clients:
        first = clients.submit(sent, address, picture(), **SURE)
        assert held.wait(60)
        others = [clients.submit(sent, address, picture(seed=n), conf=f"0.00{n}") for n in range(1, 9)]
        while len(batcher._queue) < 8:
            time.sleep(0.01)
        go.set()
        assert first.result().status_code == 200
        answers = [future.result().json() for future in others]
        assert (batcher.batches, batcher.jobs) == (2, 9)
        for number, together in enumerate(answers, 1):
            alone = sent(address, picture(seed=number), conf=f"0.00{number}").json()
            boxes = [[box["xyxy"] for box in found["pictures"][0]["detections"]] for found in (together, alone)]
            np.testing.assert_allclose(*boxes, atol=0.05)
            assert together["timings_ms"]["queue"] > alone["timings_ms"]["queue"]


def test_decoding_and_the_model_have_the_time_limit_each(files, monkeypatch):
    """As --help and the manual say: together they may take longer."""
    service = made_service(files[:1], seconds=3)
    batcher, decoded = service.batchers["first/best"], service_module.decoded_picture
    answer = batcher._answer
    batcher._answer = lambda *given: (time.sleep(1.7), answer(*given))[1]
    monkeypatch.setattr(service_module, "decoded_picture", lambda *given: (time.sleep(1.7), decoded(*given))[1])
    with running(service) as address:
        answered = sent(address, picture())
    assert answered.status_code == 200
    assert answered.json()["timings_ms"]["total"] > 3000
    (told,) = (action.help for action in serve.build_parser()._actions if action.dest == "timeout")
    assert told == "seconds each for upload, decoding and model (default: 30)"


def test_a_full_queue_is_429_and_a_slow_model_504(files):
    service = made_service(files[:1], queue=2, seconds=4)
    batcher = service.batchers["first/best"]
    held, go, answer = threading.Event(), threading.Event(), batcher._answer

    def slow(jobs, waited):
        held.set()
        go.wait(60)
        return answer(jobs, waited)

    batcher._answer = slow
    with running(service) as address, ThreadPoolExecutor(3) as clients:
        first = clients.submit(sent, address, picture())
        assert held.wait(60)
        waiting = clients.submit(sent, address, picture(), picture())
        while len(batcher._queue) < 2:
            time.sleep(0.01)
        refused = sent(address, picture())
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert "2 waiting pictures" in refused.json()["error"]
        assert first.result().status_code == waiting.result().status_code == 504
        assert waiting.result().json() == {"error": "an answer was expected in 4 s"}
        go.set()
        assert sent(address, picture()).status_code == 200
        assert batcher.jobs == 2  # nobody waited for the two of the second request


def test_a_model_that_fails_is_a_500_without_insides(files, caplog):
    service = made_service(files[:1])
    batcher = service.batchers["first/best"]
    answer = batcher._answer

    def broken(jobs, waited):
        raise RuntimeError("the secret of /home/me")

    with running(service) as address:
        batcher._answer = broken
        failed = sent(address, picture())
        assert failed.status_code == 500
        assert failed.json() == {"error": "a fault of the service, which its log tells"}
        batcher._answer = answer
        assert sent(address, picture()).status_code == 200
    assert "the secret" in caplog.text


def test_the_log_has_one_line_a_request_and_no_names_of_pictures(address, caplog):
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert sent(address, picture(), name="private.png").status_code == 200
    httpx.get(f"{address}/healthz")
    raw(address, b"GET /a%0Ab%1b[31m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    lines = [record.getMessage() for record in caplog.records if record.name != "httpx"]
    assert [line.split(",")[0] for line in lines] == ["POST /v1/detect 200", "GET /a?b?[31m 404"]


def test_nothing_of_a_request_stays(service, address, monkeypatch):
    def opened(*_, **__):
        raise AssertionError("a temporary file")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", opened)
    monkeypatch.setattr("tempfile.NamedTemporaryFile", opened)
    monkeypatch.setattr("tempfile.mkstemp", opened)
    assert sent(address, picture(".bmp", (250, 200))).status_code == 200
    assert service._uploads.held == 0
    assert service.running == 0


# ------------------------------------------------------------------------------------------------------------- stopping
def test_while_stopping_what_runs_is_answered_and_the_rest_refused(files):
    service = made_service(files[:1])
    batcher = service.batchers["first/best"]
    held, go, answer = threading.Event(), threading.Event(), batcher._answer

    def slow(jobs, waited):
        held.set()
        assert go.wait(60)
        return answer(jobs, waited)

    batcher._answer = slow
    with running(service) as address, ThreadPoolExecutor(1) as clients:
        first = clients.submit(sent, address, picture())
        assert held.wait(60)
        service.stopping = True
        for refused in (httpx.get(f"{address}/healthz"), sent(address, picture())):
            assert refused.status_code == 503
            assert refused.json() == {"error": "the service is stopping"}
        go.set()
        assert first.result().status_code == 200


# ---------------------------------------------------------------------------------------------------------- other files
IDS = ("tiny.pt", "tiny.torchscript")


def test_an_exported_file_for_one_size_and_batch_is_served(files, tmp_path):
    import export

    copy = tmp_path / "tiny.pt"
    copy.write_bytes(files[0].read_bytes())
    export.run(weights=str(copy), include=["torchscript"], imgsz=[SIDE], batch_size=2, device="cpu")
    service = made_service([copy, copy.with_suffix(".torchscript")])
    with running(service) as address:
        told = httpx.get(f"{address}/v1/models").json()["models"][1]
        assert told["id"] == "tiny.torchscript"
        assert told["imgsz"] == [SIDE, SIDE]
        assert told["dynamic_layers"] == []
        assert told["parameters"] is None
        contents = [picture(size_wh=(64, 64), seed=seed) for seed in range(3)]
        found = [sent(address, *contents, **SURE, model=ident).json()["pictures"] for ident in IDS]
        assert "attention" not in sent(address, picture(), model=IDS[1], attention="true").json()["pictures"][0]
    for one, other in zip(*found, strict=True):
        assert one["detections"]
        boxes = [[box["xyxy"] for box in picture["detections"]] for picture in (one, other)]
        np.testing.assert_allclose(*boxes, atol=0.05)


# ------------------------------------------------------------------------------------------------------------- pictures
def test_pictures_are_turned_upright_and_truncated_ones_rescued(address):
    from io import BytesIO

    from PIL import Image

    stream, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(cv2.imdecode(np.frombuffer(picture(), np.uint8), 1)).save(stream, "JPEG", exif=exif)
    found = sent(address, stream.getvalue()).json()["pictures"][0]
    assert (found["width"], found["height"], found["truncated"]) == (32, 48, False)
    whole = picture(".jpg", (200, 100))
    found = sent(address, whole[: len(whole) // 2]).json()["pictures"][0]
    assert (found["width"], found["height"], found["truncated"]) == (200, 100, CV_TELLS)


@pytest.mark.parametrize("suffix", [".bmp", ".jpg", ".png", ".tiff", ".webp"])
def test_formats(address, suffix):
    found = sent(address, picture(suffix)).json()["pictures"][0]
    assert (found["width"], found["height"]) == (48, 32)

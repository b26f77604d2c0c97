"""The page of serve.py in headless Chromium (Debian's package `chromium`), against a service of tiny models. Skips
where the browser or Playwright is not installed; neither is ever fetched by a test."""

import json
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import torch

from tests.serving import CFG, STATIC_CFG, answered, made_service, picture, running, unsure_weights
from utils.boxes import box_iou

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium")
WATCH = "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
TELLS_TRUNCATED = int(cv2.__version__.partition(".")[0]) >= 5  # OpenCV before rescues files without a word
NAME, SIZE_WH = "noise.png", (160, 120)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    pytest.importorskip("fastapi", reason="needs requirements-serve.txt")
    folder = tmp_path_factory.mktemp("weights")
    run = folder / "run" / "weights"
    run.mkdir(parents=True)
    files = [unsure_weights(folder / "dyn.pt", CFG), unsure_weights(run / "plain.pt", STATIC_CFG)]
    with running(made_service(files)) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("needs the browser of Debian's package chromium on the PATH")
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """visit(locale=...) -> the page, opened; at the end no request may have left the service, no policy been broken and
    no script have failed."""
    contexts, requests, troubles = [], [], []

    def open_page(**options):
        context = browser.new_context(**{"viewport": DESK, "locale": "en-US", "accept_downloads": True, **options})
        contexts.append(context)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.goto(address)
        page.locator("#model-a option").first.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    elsewhere = [url for url in requests if urlsplit(url).scheme in ("http", "https") and not url.startswith(address)]
    assert requests
    assert elsewhere == []
    assert [line for line in troubles if "status of 413" not in line] == []  # the refusal that a test asks for


def upload(page, files=None, models: int = 2) -> None:
    """Chooses files (one of noise) and waits until every model has answered."""
    page.set_input_files("#files", files or [{"name": NAME, "mimeType": "image/png", "buffer": noise()}])
    settled(page, models)


def settled(page, models: int = 2) -> None:
    page.locator(f"body:not(.working) .pane:nth-child({models})[data-state=done]").wait_for()


def noise() -> bytes:
    return picture(".png", SIZE_WH)


def asked(address: str, model: str, **fields) -> dict:
    """What POST /v1/detect gives for the noise."""
    return answered(address, noise(), model=model, **fields)["pictures"][0]


def slide(page, ident: str, value: float) -> None:
    page.locator(f"#{ident}").fill(str(value))


def eventually(page, value, expected) -> None:
    """Waits until value() is what is expected, as a page draws when the browser finds time; at most five seconds."""
    for _ in range(100):
        if value() == expected:
            return
        page.wait_for_timeout(50)
    assert value() == expected


def count_in(page, model: str) -> int:
    return int(page.locator(f".pane[data-model='{model}'] .count").get_attribute("data-count"))


def overlap(one: list[float], other: list[float]) -> float:
    return box_iou(torch.tensor([one]), torch.tensor([other])).item()


def pairs(one: list[dict], other: list[dict]) -> int:
    """How many detections of two lists belong together: same name, IoU of .5 and more, the closest first."""
    close = [
        (overlap(a["xyxy"], b["xyxy"]), i, j)
        for i, a in enumerate(one)
        for j, b in enumerate(other)
        if a["name"] == b["name"] and overlap(a["xyxy"], b["xyxy"]) >= 0.5
    ]
    left, right = set(), set()
    for _, i, j in sorted(close, key=lambda pair: -pair[0]):
        if i not in left and j not in right:
            left.add(i), right.add(j)
    return len(left)


def canvas_pixels(page, model: str) -> np.ndarray:
    """The picture of a pane as it stands on the screen, BGR."""
    data = page.locator(f".pane[data-model='{model}'] canvas").screenshot()
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def near(pixels: np.ndarray, rgb: tuple[int, int, int]) -> int:
    return int((np.abs(pixels.astype(int) - rgb[::-1]).max(2) <= 6).sum())


def test_a_picture_gets_its_boxes(visit, address):
    page = visit()
    assert page.get_by_text("Drop a picture here").is_visible()
    upload(page)
    assert not page.locator("#empty").is_visible()
    expected = asked(address, "dyn")["detections"]
    assert count_in(page, "dyn") == len(expected) > 0
    from utils.annotator import class_colour

    for cls in {found["class"] for found in expected}:
        assert near(canvas_pixels(page, "dyn"), class_colour(cls)) > 100  # the palette of detect.py's pictures
    assert page.locator(".pane[data-model=dyn] .times").inner_text().startswith("inference ")
    assert f"dyn {len(expected)} box" in page.locator("#status").text_content()
    page.locator(".pane[data-model=dyn] summary").last.click()
    rows = page.locator(".pane[data-model=dyn] tbody tr")
    assert rows.count() == len(expected)
    assert rows.first.locator("td").first.inner_text() == f"{expected[0]['confidence']:.3f}"


def test_sliders_show_what_the_service_gives_with_these_values(visit, address):
    page = visit()
    upload(page)
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    counts = []
    for conf in (0.05, 0.3, 0.45, 0.6, 0.99):
        slide(page, "conf", conf)
        settled(page)
        page.wait_for_timeout(50)  # one frame of the screen
        for model in ("dyn", "run/plain"):
            assert count_in(page, model) == len(asked(address, model, conf=conf)["detections"])
        counts.append(count_in(page, "dyn"))
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 3
    assert sent == []  # the confidence is answered in the browser
    slide(page, "conf", 0.3)
    for iou in (0.1, 0.8):
        with page.expect_response("**/v1/detect"):
            slide(page, "iou", iou)
        settled(page)
        page.wait_for_timeout(50)
        assert count_in(page, "dyn") == len(asked(address, "dyn", conf=0.3, iou=iou)["detections"])


def test_classes_are_switched_off_and_on(visit, address):
    page = visit()
    upload(page)
    slide(page, "conf", 0.05)
    chips = page.locator(".chip")
    eventually(page, chips.count, 2)
    chips.filter(has_text="square").click()
    eventually(page, lambda: chips.filter(has_text="square").get_attribute("aria-pressed"), "false")
    only_bars = asked(address, "dyn", conf=0.05, classes="bar")["detections"]
    everything = asked(address, "dyn", conf=0.05)["detections"]
    assert len(everything) > len(only_bars) > 0
    eventually(page, lambda: count_in(page, "dyn"), len(only_bars))
    page.locator("#all-classes").click()
    eventually(page, lambda: count_in(page, "dyn"), len(everything))


def test_two_models_are_compared(visit, address):
    page = visit()
    upload(page)
    one, other = (asked(address, model)["detections"] for model in ("dyn", "run/plain"))
    both = pairs(one, other)
    assert 0 < both < max(len(one), len(other))
    expected = f"{both} of {len(one) + len(other) - both} objects agree"
    assert page.locator("#agreement").inner_text() == expected
    assert page.locator(".pane[data-model=dyn] .agreed").filter(has_text="both").count() == both
    page.locator("#model-b").select_option("")
    settled(page, 1)
    assert page.locator(".pane").count() == 1
    assert not page.locator("#legend").is_visible()


def test_attention_stands_in_bars(visit, address):
    page = visit()
    upload(page)
    expected = asked(address, "dyn", attention="true")["attention"]
    pane = page.locator(".pane[data-model=dyn]")
    assert pane.locator(".layers dt").all_inner_texts() == [layer["layer"] for layer in expected]
    bars = pane.locator(".kernel")
    shown = [float(bars.nth(at).get_attribute("data-weight")) for at in range(bars.count())]
    assert shown == pytest.approx([weight for layer in expected for weight in layer["weights"]], abs=1e-3)
    widths = [bars.nth(at).bounding_box()["width"] for at in range(bars.count())]
    assert [width / sum(widths) for width in widths] == pytest.approx(shown, abs=0.02)
    assert not page.locator(".pane[data-model='run/plain'] .attention").is_visible()
    page.locator("#attention").uncheck()
    pane.locator(".attention").wait_for(state="hidden")


def test_downloads(visit, address, tmp_path):
    page = visit()
    upload(page)
    files = {}
    for kind in ("png", "txt", "json"):
        with page.expect_download() as event:
            page.locator(f".pane[data-model=dyn] [data-download={kind}]").click()
        files[event.value.suggested_filename] = tmp_path / kind
        event.value.save_as(tmp_path / kind)
    assert list(files) == ["noise-dyn.png", "noise.txt", "noise-dyn.json"]
    with page.expect_download() as event:
        page.locator(".pane[data-model='run/plain'] [data-download=json]").click()
    assert event.value.suggested_filename == "noise-run-plain.json"
    expected = asked(address, "dyn")["detections"]
    annotated = cv2.imread(str(tmp_path / "png"))
    original = cv2.imdecode(np.frombuffer(noise(), np.uint8), cv2.IMREAD_COLOR)
    assert annotated.shape[1::-1] == SIZE_WH
    assert 0.05 < (annotated != original).any(2).mean() < 1  # boxes and labels are drawn on it
    rows = np.loadtxt(tmp_path / "txt", ndmin=2)
    assert rows[:, 0].tolist() == [found["class"] for found in expected]
    assert rows[:, 5] == pytest.approx([found["confidence"] for found in expected], rel=1e-4)
    centres, sides = rows[:, 1:3], rows[:, 3:5]
    xyxyn = np.hstack((centres - sides / 2, centres + sides / 2))
    assert xyxyn == pytest.approx(np.array([found["xyxyn"] for found in expected]), abs=1e-4)
    assert json.loads((tmp_path / "json").read_text())["detections"] == expected
    page.locator(".pane[data-model=dyn] .with-confidence").uncheck()
    with page.expect_download() as event:
        page.locator(".pane[data-model=dyn] [data-download=txt]").click()
    assert np.loadtxt(event.value.path(), ndmin=2).shape == (len(expected), 5)


def test_errors_are_sentences_where_they_belong(visit):
    page = visit()
    broken = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"}
    page.set_input_files("#files", [broken])
    page.locator("#notices", has_text="broken.jpg: this browser cannot read it").wait_for()
    assert page.locator("#empty").is_visible()
    upload(page, [broken, {"name": NAME, "mimeType": "image/png", "buffer": noise()}])  # the others are shown
    assert page.locator("#thumbnails li").count() == 1
    page.get_by_role("button", name="Dismiss").click()
    assert page.locator("#notices p").count() == 0
    refusal = json.dumps({"error": "at most 9 bytes were expected, got 10"})
    page.route("**/v1/detect", lambda route: route.fulfill(status=413, content_type="application/json", body=refusal))
    slide(page, "iou", 0.6)
    fault = page.locator(".pane[data-model=dyn] .fault")
    fault.filter(has_text="(413): at most 9 bytes were expected, got 10").wait_for()
    page.unroute("**/v1/detect")
    fault.get_by_role("button", name="Try again").click()
    settled(page)
    assert not fault.is_visible()


def test_a_file_that_ends_too_early_is_told_and_grey_where_it_is_missing(visit):
    page = visit()
    upload(page)
    note = page.locator(".pane[data-model=dyn] .truncated")
    assert not note.is_visible()
    whole = cv2.imencode(".jpg", np.full((*SIZE_WH[::-1], 3), (0, 0, 255), np.uint8))[1].tobytes()
    cut = {"name": "cut.jpg", "mimeType": "image/jpeg", "buffer": picture(".jpg", SIZE_WH)[:4000]}
    upload(page, [cut, {"name": "whole.jpg", "mimeType": "image/jpeg", "buffer": whole}])
    slide(page, "conf", 0.99)
    eventually(page, note.is_visible, TELLS_TRUNCATED)
    height = canvas_pixels(page, "dyn").shape[0]
    missing = canvas_pixels(page, "dyn")[int(0.9 * height) :]
    assert near(missing, (128, 128, 128)) > 0.9 * missing.shape[0] * missing.shape[1]
    page.get_by_role("button", name="Show whole.jpg").click()
    eventually(page, note.is_visible, False)


def test_paste_drop_and_sample(visit):
    page = visit()
    page.locator("#sample").click()
    settled(page)
    transfer = """([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, {type: "image/png"}));
        const [Kind, field] = kind === "paste" ? [ClipboardEvent, "clipboardData"] : [DragEvent, "dataTransfer"];
        document.body.dispatchEvent(new Kind(kind, {[field]: data, bubbles: true, cancelable: true}));
    }"""
    for number, kind in enumerate(("paste", "drop"), start=2):
        page.evaluate(transfer, [kind, list(noise())])
        page.get_by_role("button", name=f"Show {kind}.png").wait_for()
        settled(page)
        assert page.locator("#thumbnails li").count() == number
    page.get_by_role("button", name="Show drop.png").press("ArrowLeft")
    shown = page.get_by_role("button", name="Show paste.png")
    eventually(page, lambda: shown.get_attribute("aria-current"), "true")
    page.locator("#clear").click()
    page.locator("#empty").wait_for()


def test_a_video_is_stepped_and_the_webcam_runs(visit, tmp_path):
    file = tmp_path / "clip.webm"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"VP80"), 10, (96, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no VP8")
    for seed in range(10):
        writer.write(cv2.imdecode(np.frombuffer(picture(".png", (96, 64), seed), np.uint8), cv2.IMREAD_COLOR))
    writer.release()
    page = visit()
    page.set_input_files("#files", file)
    play = page.locator("#play")
    page.get_by_role("button", name="Play", exact=True).wait_for()  # it plays once, then stops by itself
    settled(page)
    slide(page, "seek", 0.3)
    page.locator("#time", has_text="0:00.3").wait_for()
    page.locator("#step").click()
    page.locator("#time", has_text="0:00.4").wait_for()
    settled(page)
    assert count_in(page, "dyn") > 0
    page.locator("#clear").click()
    sent = []
    page.on("response", lambda response: sent.append(response.url))
    page.locator("#camera").click()
    page.locator(".pane[data-state=done]").first.wait_for()
    page.wait_for_timeout(500)
    assert len([url for url in sent if url.endswith("/v1/detect")]) >= 2  # one frame after the other
    play.click()
    settled(page)
    page.locator("#camera").click()
    page.locator("#empty").wait_for()


def test_a_phone_in_chinese(visit):
    page = visit(viewport=PHONE, locale="zh-CN", is_mobile=True, has_touch=True, device_scale_factor=2)
    assert page.get_by_text("把图片拖到这里").is_visible()
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    upload(page)
    assert page.locator(".pane[data-model=dyn] .count").inner_text().endswith("个框")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    upload(page, [{"name": f"{n}.png", "mimeType": "image/png", "buffer": picture(seed=n)} for n in range(8)])
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    upload(page)
    eventually(page, lambda: page.locator("#thumbnails").evaluate("list => list.scrollLeft > 300"), True)  # the last
    strip, slider, shown = (page.locator(at).bounding_box() for at in ("#strip", "#conf", ".pane:first-child canvas"))
    assert strip["y"] < slider["y"] < shown["y"]
    assert shown["y"] + shown["height"] <= PHONE["height"]  # the slider and what it changes are seen together
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.set_input_files("#files", [{"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b""}])
    page.locator("#notices", has_text="broken.jpg").wait_for()
    eventually(page, lambda: page.evaluate("scrollY"), 0)
    canvas = page.locator(".pane[data-model=dyn] canvas")
    assert page.evaluate("document.querySelector('.pane canvas').width") == round(2 * canvas.bounding_box()["width"])
    page.get_by_role("button", name="English").click()
    page.get_by_text("Thresholds", exact=True).wait_for()
    page.reload()
    page.get_by_text("Thresholds", exact=True).wait_for()  # remembered


def test_every_text_is_in_both_languages_and_every_control_has_a_name(visit):
    page = visit()
    texts = page.evaluate("import('/page/texts.js').then(module => module.TEXTS)")
    assert list(texts["en"]) == list(texts["zh"])
    marks = [{key: sorted(set(_placeholders(value))) for key, value in texts[code].items()} for code in ("en", "zh")]
    assert marks[0] == marks[1]
    files = [file for file in (ROOT / "engine" / "page").iterdir() if file.suffix in (".js", ".html")]
    sources = "".join(file.read_text() for file in files if file.name != "texts.js")
    assert [key for key in texts["en"] if f'"{key}"' not in sources] == []  # none is left over
    upload(page)
    for control in page.locator("button:visible, select:visible, input:visible, canvas[role=img]:visible").all():
        snapshot = control.aria_snapshot()
        assert '"' in snapshot, f"a control without a name: {control.evaluate('element => element.outerHTML')}"


def _placeholders(value: str) -> list[str]:
    return [part.split("}")[0] for part in value.split("{")[1:]]

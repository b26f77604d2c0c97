import base64

import pytest

from tests.utils.loopback import head, serving
from utils import downloads
from utils.downloads import LONGEST_NAME, LiveContent, checked_url, fetch, file_name, shown
from utils.errors import InputError

CONTENT = bytes(range(256)) * 300


def send(content=CONTENT, *, told=None, **headers):
    """An answer with that content, whose Content-Length is what is told."""

    def answer(handler):
        head(handler, Content_Length=len(content) if told is None else told, **headers)
        handler.wfile.write(content)

    return answer


def redirect(location):
    return lambda handler: head(handler, 302, Location=location, Content_Length=0)


@pytest.mark.parametrize("content", [b"", b"x", CONTENT])
def test_a_file_arrives_whole(tmp_path, content, capsys):
    with serving(send(content)) as server:
        file = fetch(f"{server}/a.bin?token=secret", tmp_path / "b.bin")
    assert file == tmp_path / "b.bin"
    assert file.read_bytes() == content
    told = capsys.readouterr().err
    assert told.count(f"Downloading {server}/a.bin?... (") == 1
    assert "secret" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["b.bin"]


def test_a_file_without_a_told_size_arrives_and_replaces(tmp_path):
    def chunked(handler):
        handler.protocol_version = "HTTP/1.1"
        head(handler, Transfer_Encoding="chunked")
        for part in (CONTENT[:1000], CONTENT[1000:]):
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    (tmp_path / "a").write_bytes(b"old")
    with serving(chunked) as server:
        assert fetch(f"{server}/a", tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda handler: head(handler, 404), "404 Not Found"),
        (lambda handler: head(handler, 500), "500 Internal Server Error"),
        (lambda handler: None, "RemoteDisconnected"),
        (lambda handler: handler.wfile.write(b"\0garbage\r\n\r\n"), "BadStatusLine"),
        (send(told=len(CONTENT) + 1), "broke off after 76.8 kB of 76.8 kB"),
        (send(b"x" * 100_001), "expected at most 100.0 kB"),
        (send(b"x" * 100_001, told="unknown"), "expected at most 100.0 kB"),
        (send(b"", told=10**15), "expected at most 100.0 kB"),
        (redirect("file:///etc/hostname"), "file:///etc/hostname"),
        (redirect("ftp://127.0.0.1/a"), "ftp://127.0.0.1/a"),
        (redirect("http://"), "cannot download"),
        (redirect("/again"), "302"),
        (send(Content_Type="multipart/x-mixed-replace; boundary=x"), "live stream"),
    ],
)
def test_what_goes_wrong_is_told_in_one_sentence_and_leaves_nothing(tmp_path, answer, told):
    (tmp_path / "a").write_bytes(b"old")
    with serving(answer) as server, pytest.raises(InputError) as error:
        fetch(f"{server}/a", tmp_path / "a", max_bytes=100_000)
    assert told in str(error.value)
    assert server in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_stream_is_told_from_a_file(tmp_path):
    with serving(send(Content_Type="multipart/x-mixed-replace; boundary=x")) as server, pytest.raises(LiveContent):
        fetch(f"{server}/a", tmp_path / "a")


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.0 200 OK\r\n\r\nabc"])
def test_a_silent_server_is_not_waited_for(tmp_path, sent):
    def silent(handler):
        handler.wfile.write(sent)
        handler.rfile.read()  # until the other side hangs up

    with serving(silent) as server, pytest.raises(InputError, match="the server is silent"):
        fetch(f"{server}/a", tmp_path / "a", timeout=0.2)


def test_a_server_that_drips_is_not_waited_for(tmp_path, monkeypatch):
    def drip(handler):
        head(handler)
        while True:
            handler.wfile.write(b"x")

    monkeypatch.setattr(downloads, "WHOLE_S", 0.2)
    with serving(drip) as server, pytest.raises(InputError, match="longer than"):
        fetch(f"{server}/a", tmp_path / "a")


def test_nobody_there(tmp_path):
    with serving(send()) as server:
        pass
    with pytest.raises(InputError, match="cannot download"):
        fetch(f"{server}/a", tmp_path / "a")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.jpg",
        "http://",
        "http:///a.jpg",
        "http:a.jpg",
        "file:///etc/hostname",
        "FILE:///etc/hostname",
        "ftp://127.0.0.1/a.jpg",
        "data:image/png;base64,AAAA",
        "gopher://127.0.0.1/a.jpg",
        "http://127.0.0.1:99999/a.jpg",
        "http://127.0.0.1:x/a.jpg",
        "http://[::1/a.jpg",
        "http://127.0.0.1/a\r\nHost: b/a.jpg",
        "http://127.0.0.1/\0.jpg",
        f"http://{'a' * 70}.{'ä' * 70}/a.jpg",
        "http://ä..b/a.jpg",
    ],
)
def test_hostile_addresses(tmp_path, url):
    with pytest.raises(InputError, match="expected") as error:
        fetch(url, tmp_path / "a")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_redirects_are_followed_and_passwords_stay_with_their_host(tmp_path):
    seen = []

    def noting(answer):
        return lambda handler: (seen.append(handler.headers.get("Authorization")), answer(handler))

    with serving(noting(send())) as other, serving(noting(redirect(f"{other}/b"))) as server:
        url = server.replace("://", "://user:pass%20word@")
        assert fetch(f"{url}/a", tmp_path / "a").read_bytes() == CONTENT
    assert seen == ["Basic " + base64.b64encode(b"user:pass word").decode(), None]


def test_paths_may_have_blanks_and_letters_of_any_script(tmp_path):
    paths = []
    with serving(lambda handler: (paths.append(handler.path), send()(handler))) as server:
        fetch(f"{server}/数字 é%20[1].jpg?a=b c&d=%2F#top", tmp_path / "a")
    assert paths == ["/%E6%95%B0%E5%AD%97%20%C3%A9%20%5B1%5D.jpg?a=b%20c&d=%2F"]


def test_https_does_not_become_http():
    request = downloads.request.Request("https://localhost/a")
    with pytest.raises(InputError, match="not encrypted"):
        downloads._Redirects().redirect_request(request, None, 302, "Found", {}, "http://localhost/a")


def test_a_folder_that_is_missing_here_is_no_fault_of_the_server(tmp_path):
    with serving(send()) as server, pytest.raises(FileNotFoundError):
        fetch(f"{server}/a", tmp_path / "missing" / "a")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", ""),
        ("a.jpg", "a.jpg"),
        ("rtsp://host", "rtsp://host"),
        ("rtsp://user:word@host:554/a/b?c=d", "rtsp://host:554/a/b?..."),
        ("rtsp://user:w@rd@host/a@b", "rtsp://host/a@b"),
        ("http://host/a#b?c", "http://host/a"),
    ],
)
def test_addresses_are_shown_without_secrets(url, expected):
    assert shown(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host", "file"),
        ("http://host/a/", "file"),
        ("http://host/a/bus.jpg?b=/c.png", "bus.jpg"),
        ("http://host/..%2F..%2Fetc%2Fbus.jpg", "_.._etc_bus.jpg"),
        ("http://host/.bashrc", "bashrc"),
        ("http://host/%00a:b|c.jpg", "_a_b_c.jpg"),
        ("http://host/%E6%95%B0.jpg", "数.jpg"),
        (f"http://host/{'a' * 300}.jpg", "a" * (LONGEST_NAME - 4) + ".jpg"),
        (f"http://host/a.{'b' * 300}", "a." + "b" * (LONGEST_NAME - 2)),
    ],
)
def test_names_of_files_are_safe(url, expected):
    assert file_name(url) == expected


def test_other_schemes_may_be_allowed():
    assert checked_url("rtsp://host:554/a", ("rtsp",)).port == 554
    with pytest.raises(InputError, match="expected an address rtsp://"):
        checked_url("http://host/a", ("rtsp",))

from pathlib import Path

import pytest
import torch

from tests.utils.loopback import head, serving
from utils import official_weights as published
from utils.errors import InputError
from utils.official_weights import official_weights


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """The three directories: working, repository, torch.hub's."""
    found = [tmp_path / name for name in ("work", "repository", "hub/checkpoints")]
    for folder in found[:2]:
        folder.mkdir()
    monkeypatch.chdir(found[0])
    monkeypatch.setattr(published, "ROOT", found[1])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return found


@pytest.mark.parametrize("there", [(0,), (1,), (2,), (0, 1, 2), (1, 2)])
def test_the_first_directory_that_has_the_file(folders, there):
    for index in there:
        folders[index].mkdir(parents=True, exist_ok=True)
        (folders[index] / "yolov5n.pt").write_bytes(b"weights")
    assert official_weights("yolov5n").resolve() == folders[there[0]] / "yolov5n.pt"


def test_downloaded_once_and_told(folders, monkeypatch, capsys):
    asked = []

    def answer(handler):
        asked.append(handler.path)
        head(handler, Content_Length=7)
        handler.wfile.write(b"weights")

    with serving(answer) as server:
        monkeypatch.setattr(published, "RELEASE", f"{server}/v6.1")
        file, again = official_weights("yolov5s6"), official_weights("yolov5s6")
    assert file == again == folders[2] / "yolov5s6.pt"
    assert file.read_bytes() == b"weights"
    assert asked == ["/v6.1/yolov5s6.pt"]
    told = capsys.readouterr().err
    assert f"Downloading {server}/v6.1/yolov5s6.pt (7 bytes) to {file}" in told


def test_without_a_network_it_is_said_where_the_file_goes(folders, monkeypatch):
    with serving(lambda handler: head(handler, 404)) as server:
        monkeypatch.setattr(published, "RELEASE", server)
        with pytest.raises(InputError) as error:
            official_weights("yolov5n")
    for told in (*map(str, folders), f"{server}/yolov5n.pt", "404"):
        assert told in str(error.value)
    assert list(Path(folders[2]).iterdir()) == []

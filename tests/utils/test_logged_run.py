import os

import pytest

from tests.utils.logging_run import begun_run, picture
from utils.logged_run import NewPictures


@pytest.mark.parametrize(
    ("project", "group"), [("runs/train", "YOLOv5"), ("runs/train/", "YOLOv5"), ("digits", "digits"), ("a/b", "b")]
)
def test_the_group_is_named_as_in_v61(tmp_path, project, group):
    assert begun_run(tmp_path, project=project).group == group


def test_ids_last_for_a_resumed_run_and_are_not_an_older_runs(tmp_path):
    run = begun_run(tmp_path)
    run.keep_id("wandb", "a")
    run.keep_id("mlflow", "b")
    resumed = begun_run(tmp_path, resumed=True)
    resumed.forget_other_runs()
    assert (resumed.id_at("wandb"), resumed.id_at("mlflow"), resumed.id_at("other")) == ("a", "b", None)
    assert run.id_at("wandb") is None
    run.forget_other_runs()
    assert resumed.id_at("wandb") is None


def test_pictures_are_new_once_and_again_when_they_change(tmp_path):
    picture(tmp_path / "labels.jpg")
    pictures = NewPictures(tmp_path)
    assert pictures.take() == {}
    picture(tmp_path / "train_batch1.jpg")
    picture(tmp_path / "train_batch0.jpg")
    picture(tmp_path / "other.jpg")
    assert pictures.take() == {"Mosaics": [tmp_path / "train_batch0.jpg", tmp_path / "train_batch1.jpg"]}
    assert pictures.take() == {}
    os.utime(tmp_path / "labels.jpg", ns=(1, 1))
    assert pictures.take() == {"Labels": [tmp_path / "labels.jpg"]}

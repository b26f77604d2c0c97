"""What utils/callbacks.py and docs/loggers.md say of the hooks, held against a real training."""

import re
from pathlib import Path

import pytest

import train
from engine.trainer import train as run_training
from utils.callbacks import HOOKS, Callbacks

NOT_FIRED = {"on_params_update"}  # by AutoBatch alone: tests/engine/test_training_setup.py
BATCH = ["on_train_batch_start", "optimizer_step", "on_before_zero_grad", "on_train_batch_end"]
VALIDATION = ["on_val_start", "on_val_batch_start", *["on_val_image_end"] * 4, "on_val_batch_end", "on_val_end"]


@pytest.fixture
def heard(data, tmp_path):
    """The calls of a training of two epochs, one optimizer step a batch: (hook, keyword arguments)."""
    calls, callbacks = [], Callbacks()
    for hook in HOOKS:
        callbacks.register(hook, lambda *args, hook=hook, **kwargs: calls.append((hook, args, kwargs)))
    options = {"imgsz": 64, "batch_size": 8, "epochs": 2, "workers": 0, "device": "cpu", "noplots": True}
    hyp = Path(__file__).parents[2] / "data/hyps/hyp.scratch-low.yaml"
    (tmp_path / "hyp.yaml").write_text(hyp.read_text() + "\nnominal_batch: 8\n")
    opt = train.parse_opt([])
    vars(opt).update(data, **options, hyp=str(tmp_path / "hyp.yaml"), project=str(tmp_path), given=[])
    run_training(opt, callbacks)
    return calls


def test_a_training_calls_the_hooks_in_order_with_the_documented_arguments(heard):
    epoch = [
        "on_train_epoch_start", *BATCH, "on_train_epoch_end", *VALIDATION, "on_fit_epoch_end", "on_model_save",
    ]  # fmt: skip
    begin, end = (
        ["on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_start"],
        ["on_train_end", "teardown"],
    )
    assert [hook for hook, _, _ in heard] == [*begin, *epoch, *epoch, *VALIDATION, *end]
    assert {hook for hook, _, _ in heard} == set(HOOKS) - NOT_FIRED
    for hook, args, kwargs in heard:
        assert (hook, args, tuple(kwargs)) == (hook, (), HOOKS[hook])


def test_the_table_in_the_docs_is_that_of_the_code():
    text = (Path(__file__).parents[2] / "docs/loggers.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    documented = {hook: tuple(re.findall(r"(?:^|; )`(\w+)`", arguments)) for hook, arguments in rows}
    assert list(documented.items()) == list(HOOKS.items())

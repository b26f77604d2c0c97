# make demo   install, train a dynamic YOLOv5 on handwritten digits, validate it, draw its detections
# make bench  measure training, loader, detection and start-up (docs/speed.md)
# make test   install, lint, all tests            make test-fast   without the slow ones
# make soak   load for 6 to 20 minutes, memory watched     make coverage   what the tests reach, with branches
# make audit  looks up the tested versions in a database of known vulnerabilities (docs/reliability.md)
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
DEMO := runs/demo
EXTRAS := $(addprefix requirements-,dev.txt coco.txt evolve.txt wandb.txt mlflow.txt screen.txt serve.txt \
	export.txt coreml.txt ncnn.txt)

.PHONY: demo test test-fast lint format bench soak coverage audit clean

.venv/runtime: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev: .venv/runtime $(EXTRAS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(EXTRAS:%=-r %)
	touch $@

demo: .venv/runtime
	$(BIN)/python train.py --cfg models/yolov5n_dynamic.yaml --epochs 30 --project $(DEMO) --name train --exist-ok
	$(BIN)/python val.py --weights $(DEMO)/train/weights/best.pt --project $(DEMO) --name val --exist-ok
	$(BIN)/python detect.py --weights $(DEMO)/train/weights/best.pt --project $(DEMO) --name detect --exist-ok
	@echo
	@echo "Look at what it made:"
	@ls -1 $(DEMO)/train/results.png $(DEMO)/train/train_batch0.jpg $(DEMO)/val/val_batch0_labels.jpg \
		$(DEMO)/val/val_batch0_pred.jpg $(DEMO)/val/confusion_matrix.png $(DEMO)/detect/*.jpg

test: lint
	$(BIN)/python -m pytest -q -n 2 -m "not openvino and not soak" --durations=15
	$(BIN)/python -m pytest -q -n 2 -m openvino

test-fast: lint
	$(BIN)/python -m pytest -q -n 2 -m "not slow and not openvino and not soak"
	$(BIN)/python -m pytest -q -n 2 -m "openvino and not slow"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: .venv/dev
	$(BIN)/python -m pytest -q -n 0 -s -m soak tests/soak

coverage: .venv/dev
	$(BIN)/python -m pytest -q -n 2 -m "not openvino and not soak" -k "not help_is_instant" --cov --cov-report=
	$(BIN)/python -m pytest -q -n 2 -m openvino --cov --cov-append --cov-report=
	$(BIN)/python -m coverage report --fail-under=90

.venv-audit/made: Makefile
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check "pip-audit>=2.10"
	touch $@

audit: .venv-audit/made
	.venv-audit/bin/pip-audit --strict --disable-pip --no-deps -r docs/tested-versions.txt

BENCHES := startup nms loader infer train_step train_epoch
bench: .venv/runtime
	set -e; for name in $(BENCHES); do echo; echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

clean:
	rm -rf runs/demo .pytest_cache .ruff_cache .mypy_cache .coverage .coverage.*

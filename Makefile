# `make run`: the main job. `make test`: its proof. Both set up .venv themselves.
PYTHON ?= python3
PY := .venv/bin/python
WORKDIR ?= runs/digits
PYTEST := $(PY) -m pytest -q -n 2 --dist loadfile

.PHONY: run test battery test-all lint types oracles benchmark clean

run: .venv/.run                    ## train on the embedded digits, leave $(WORKDIR)/report.html
	$(PY) -m launch.train --config=configs/digits.py --workdir=$(WORKDIR)

test: .venv/.dev                   ## < 10 minutes on 2 cores
	$(PYTEST) -m "not slow"

battery: .venv/.dev                ## every case of every layer through every check; every example
	$(PYTEST) --dist load -m slow tests/layers/test_battery.py tests/evidence/test_cards.py

test-all: .venv/.oracles           ## everything, oracles and slow tests too; what needs the machine to itself, last
	$(PYTEST) --dist worksteal -m "not alone"
	$(PY) -m pytest -q -m alone

lint: .venv/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: .venv/.dev
	$(PY) -m mypy

oracles: .venv/.oracles            ## tests against torch, timm, transformers, qwix; pages in Chromium
	$(PYTEST) -m "(oracle or browser) and not slow"

benchmark: .venv/.oracles          ## tables of docs/benchmarks
	$(PY) -m launch.benchmark --suite=models --against=torch
	$(PY) -m launch.benchmark --suite=layers --against=torch

.venv/.run: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"efficient_layers needs Python 3.11 to 3.13, got {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install -q -r requirements.txt
	touch $@

.venv/.dev: .venv/.run pyproject.toml
	$(PY) -m pip install -q -e '.[dev]'
	touch $@

.venv/.oracles: .venv/.dev
	$(PY) -m pip install -q torch==2.13.0
	$(PY) -m pip install -q --no-deps torchvision==0.28.0 timm
	$(PY) -m pip install -q safetensors pyyaml huggingface_hub scikit-learn transformers qwix
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

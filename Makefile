# make demo | make test | make segment | make learn | make benchmark | make ablation — each sets everything up by itself, and only once.
VENV ?= .venv
PYTHON ?= python3
RUN := $(VENV)/bin/python

DEMO_DATA ?= data/digits
DEMO_DIR ?= work_dirs/demo
SEGMENT_DIR ?= work_dirs/segment
LEARN_DIR ?= work_dirs/learn
SEGMENTOR ?= semantic_fpn
BENCHMARK_DIR ?= work_dirs/benchmark
ABLATION_DIR ?= work_dirs/ablation
CHAOS_DIR ?= work_dirs/chaos

# Where it is set, every process of the tests and of the demo would compile torch anew: seconds each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo segment learn test test-fast lint chaos matrix docs benchmark ablation

help:
	@echo "make demo     train Mask R-CNN on a small data set, draw its predictions"
	@echo "make test     run the tests, on up to four cores with 4 GB of memory each (fewer: make test ARGS='-n 2')"
	@echo "make test-fast  those of them that take less than half a second, for every save"
	@echo "make lint     style, types and the contract of imports"
	@echo "make chaos    kill runs again and again, fill a small disk, and count what is lost"
	@echo "make matrix   the core of the tests with other versions, an environment a row (some: make matrix ARGS='oldest onedl')"
	@echo "make segment  train Semantic FPN from the demo's backbone, or with SEGMENTOR=upernet UperNet"
	@echo "make learn    the demo at four times the length"
	@echo "make benchmark  speed of Next-ViT-S in every runtime here against timm's, with the machine's own limit"
	@echo "make ablation   train the rows of the paper's Tables 1 and 8 on the small data set: 13 short trainings"
	@echo "make docs     build the site of docs/ into site/"
	@echo "make setup    only the environment, in $(VENV) (another place: make VENV=DIR …; mmcv's own operators: COMPILED_OPS=1)"

setup:
	@$(PYTHON) tools/setup_venv.py $(if $(COMPILED_OPS),--compiled-ops) $(VENV)

# A file's tests stay in one worker, and share what its fixtures build. A worker takes up to 3.6 GB of memory.
TEST := $(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile

test: setup
	@$(TEST) $(ARGS)

test-fast: setup
	@$(TEST) -m 'not slow' $(ARGS)

lint: setup
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(VENV)/bin/lint-imports && $(RUN) -m mypy

chaos: setup
	@$(RUN) benchmarks/chaos.py --work-dir $(CHAOS_DIR)

matrix:
	@$(PYTHON) tools/matrix.py $(ARGS)

demo: setup
	@$(RUN) tools/demo.py configs/demo/mask_rcnn_nextvit_s_digits.py --data-dir $(DEMO_DATA) --work-dir $(DEMO_DIR)

segment: setup
	@test -f $(DEMO_DIR)/epoch_1.pth || $(MAKE) demo
	@$(RUN) tools/demo.py configs/demo/$(SEGMENTOR)_nextvit_s_digits.py --data-dir $(DEMO_DATA) \
		--work-dir $(SEGMENT_DIR)/$(SEGMENTOR) --cfg-options model.backbone.init_cfg.checkpoint=$(DEMO_DIR)/epoch_1.pth

learn: setup
	@$(RUN) tools/demo.py configs/demo/mask_rcnn_nextvit_s_digits_long.py --data-dir $(DEMO_DATA) --work-dir $(LEARN_DIR)

benchmark: setup
	@mkdir -p $(BENCHMARK_DIR)
	@$(RUN) tools/benchmark.py latency --markdown $(BENCHMARK_DIR)/latency.md --json $(BENCHMARK_DIR)/latency.json

ablation: setup
	@$(RUN) tools/ablation.py --tables 1 8 --tasks segmentation --data-dir $(DEMO_DATA) --work-dir $(ABLATION_DIR)
	@$(RUN) tools/reproduce.py --table 1 --runs $(ABLATION_DIR)
	@$(RUN) tools/reproduce.py --table 8 --runs $(ABLATION_DIR)

docs: setup
	@$(RUN) -c 'import mkdocs, mkdocstrings' 2>/dev/null || $(RUN) -m pip install --quiet --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

# make demo | make test | make learn — each sets everything up by itself, and only once.
VENV ?= .venv
PYTHON ?= python3
RUN := $(VENV)/bin/python

DEMO_DATA ?= data/digits
DEMO_DIR ?= work_dirs/demo
LEARN_DIR ?= work_dirs/learn

.PHONY: help setup demo learn test

help:
	@echo "make demo    train Mask R-CNN on a small data set, draw its predictions"
	@echo "make test    run the tests"
	@echo "make learn   the demo at four times the length"
	@echo "make setup   only the environment, in $(VENV) (another place: make VENV=DIR …)"

setup:
	@$(PYTHON) tools/setup_venv.py $(VENV)

test: setup
	@$(RUN) -m pytest $(ARGS)

demo: setup
	@$(RUN) tools/demo.py configs/demo/mask_rcnn_nextvit_s_digits.py --data-dir $(DEMO_DATA) --work-dir $(DEMO_DIR)

learn: setup
	@$(RUN) tools/demo.py configs/demo/mask_rcnn_nextvit_s_digits_long.py --data-dir $(DEMO_DATA) --work-dir $(LEARN_DIR)

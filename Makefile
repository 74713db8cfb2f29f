# Two commands for a fresh machine: `make demo` shows Trapline at work, `make test` tests it. Both install into .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Ray starts a process per worker, and each imports torch: in 2 s with compiled modules, in 7 s without.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.installed
	$(BIN)/python -m jobs.demo

# Two at a time: half of what a test takes is waiting for servers and clusters to start.
test: lint
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

# Kills, full disks, whole nights: one at a time, because they watch the machine's memory and processes.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow --durations 10

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo

# uv installs the 5 GB of torch in seconds; pip itself would take minutes. Unlike pip, uv compiles nothing: importing what
# every process of a run imports compiles 2,500 of 21,000 modules, in 8 s of one core; all would take 50 s.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[demo,test]'
	$(BIN)/python -c "import trapline.monitoring.console, trapline.monitoring.monitored_run, trapline.run.workers"
	touch $@

PYTHON ?= python3
IN = .venv/bin/python
# Jupyter asks for it; in a container one often is root.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: setup lab test lint fix menagerie

setup:       ## create .venv and install the kit, in the versions of constraints.txt
	@$(PYTHON) tools/set_up.py

lab: setup   ## open JupyterLab on the first lesson
	$(IN) -m jupyterlab $(AS_ROOT) --ServerApp.root_dir=. notebooks/01_from_prompt_to_character.ipynb

test: setup  ## lint, then the whole test suite, in two processes of one thread
	$(IN) -m ruff check .
	$(IN) -m ruff format --check .
	OMP_NUM_THREADS=1 $(IN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: setup  ## only look at the style
	$(IN) -m ruff check .
	$(IN) -m ruff format --check .

fix: setup   ## mend what ruff can mend
	$(IN) -m ruff check --fix .
	$(IN) -m ruff format .

menagerie: setup  ## train the bundled miniature from nothing (an evening on two cores, minutes on a GPU)
	$(IN) -m menagerie.train

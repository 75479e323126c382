PYTHON ?= python3
IN = .venv/bin/python
# Jupyter asks for it; in a container one often is root.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: setup lab test lint fix docs menagerie

setup:       ## create .venv and install the kit, in the versions of constraints.txt
	@$(PYTHON) tools/set_up.py

lab: setup   ## open JupyterLab on the first lesson
	$(IN) -m jupyterlab $(AS_ROOT) --ServerApp.root_dir=. notebooks/01_from_prompt_to_character.ipynb

test: lint   ## lint and types, then the whole test suite with coverage, in two processes of one thread
	OMP_NUM_THREADS=1 $(IN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
	    --cov=chosen_one_nb --cov-report=term --cov-fail-under=90

lint: setup  ## only check style and types
	$(IN) -m ruff check .
	$(IN) -m ruff format --check .
	$(IN) -m mypy

fix: setup   ## repair what ruff can repair
	$(IN) -m ruff check --fix .
	$(IN) -m ruff format .

docs: setup  ## write the API pages to site/, from the docstrings
	$(IN) -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(IN) tools/api_pages.py site

menagerie: setup  ## train the bundled miniature from nothing (an evening on two cores, minutes on a GPU)
	$(IN) -m menagerie.train

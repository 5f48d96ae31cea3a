# The commands that contributors and CI share. Use them inside a virtual environment.
.PHONY: install check test test-all docs

install:  ## Install the package, its optional parts and the development tools.
	python -m pip install ".[dev]"

check:  ## Lint, format, types and the import contract.
	ruff check .
	ruff format --check .
	mypy
	lint-imports

test:  ## The tests of a contributor's day: minutes.
	python -m pytest

test-all:  ## Everything: also slow, browser, ray and data tests.
	python -m pytest -m ""

docs:  ## Build the documentation site into site/; a warning is an error.
	python -m mkdocs build --strict

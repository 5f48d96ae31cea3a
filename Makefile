# The commands that contributors and CI share. Use them inside a virtual environment.
.PHONY: install check test test-all docs

install:  ## Install the package, its optional parts and the development tools.
	rm -rf build  # pip leaves it there, and what has gone since would be installed again
	python -m pip install ".[dev]"

check:  ## Lint, format, types and the import contract.
	ruff check .
	ruff format --check .
	mypy
	lint-imports

test:  ## The tests that take minutes.
	python -m pytest

test-all:  ## All tests, also those marked slow, browser, ray or data.
	python -m pytest -m ""

docs:  ## Build the documentation site into site/; a warning is an error.
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

# The environment is made once, in .venv, and again when its requirements change.
PYTHON ?= python3
VENV := .venv
# Not --constraint, which does not hold for what a build needs: pip takes that from the first, from 26.2 on the second.
PIP_INSTALL := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet

.DELETE_ON_ERROR:
.PHONY: demo sample card test test-all browser lint wheel-test docs format clean

demo: $(VENV)/.installed-dev  ## start the demo
	$(VENV)/bin/glcic demo

sample: $(VENV)/.installed  ## complete a sample photograph
	mkdir -p out
	$(VENV)/bin/glcic complete --sample rocket --overwrite \
	    --output out/rocket.png --comparison out/rocket-before-after.png

card: $(VENV)/.installed  ## make the packaged weights' model cards, their images and licenses anew
	rm -f glcic_hub/pretrained/*/LICENSE
	$(VENV)/bin/python -c "from pathlib import Path; from glcic_hub import GLCICPipeline; \
	    from glcic_hub.hub.card import write_card; from glcic_hub.pipeline import card_image; \
	    packaged = {name: GLCICPipeline.from_pretrained(name) for name in ('compact', 'faces')}; \
	    [write_card(Path('glcic_hub/pretrained', name), pipe.config, card_image(pipe), name=name) \
	     for name, pipe in packaged.items()]"

test: $(VENV)/.installed-dev browser  ## run the tests
	$(VENV)/bin/python -m pytest

test-all: $(VENV)/.installed-dev browser  ## run the tests, the slow ones, too
	$(VENV)/bin/python -m pytest -m "slow or not slow"

# Only the tests in a browser need it, and they are skipped without: if it cannot be had, the others run all the same.
browser:  ## install Chromium, which root can do where there is apt-get, unless there is a browser
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	    echo "installing Chromium, for the tests in a browser" >&2; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium || true; \
	fi >/dev/null

lint: $(VENV)/.installed-dev  ## check style, types, which folder imports which, and the project's own files
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/validate-pyproject pyproject.toml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/wish.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	rm -rf build/sdist
	$(VENV)/bin/python -m build --sdist --no-isolation --outdir build/sdist . >/dev/null
	$(VENV)/bin/twine check --strict build/sdist/*

wheel-test: $(VENV)/.installed-dev  ## build the wheel, install it in an empty environment and try it there
	rm -rf build/wheel build/wheel-venv
	$(PIP_INSTALL:install=wheel) --no-deps --wheel-dir build/wheel .
	$(VENV)/bin/twine check --strict build/wheel/*
	$(PYTHON) -m venv build/wheel-venv
	PIP_CONSTRAINT=constraints.txt build/wheel-venv/bin/python -m pip install --quiet build/wheel/*.whl
	build/wheel-venv/bin/python tests/installed.py

docs: $(VENV)/.installed-dev  ## build the documentation into build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet

format: $(VENV)/.installed-dev  ## put the code in shape
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:  ## remove the environment and all that was made
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml setup.py constraints.txt glcic_hub/completion/_exemplars.cpp | $(VENV)/bin/python
	$(PIP_INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml setup.py constraints.txt glcic_hub/completion/_exemplars.cpp | $(VENV)/bin/python
	$(PIP_INSTALL) --editable ".[dev]"
	touch $(VENV)/.installed $@

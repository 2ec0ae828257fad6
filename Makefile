# One command per chore; CI calls the same ones.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test faults test-system lint format lock clean

# Start everything on this machine and trigger one run. SITES=file-or-URL for your own network.
run: .venv/ready
	exec $(BIN)/python -m service up $(if $(SITES),--sites "$(SITES)") $(ARGS)

# Lint, types and every test that can run here. CI=1: one that cannot run fails instead of being left out.
test: .venv/ready lint
	CI=$(CI) $(BIN)/python -m pytest $(ARGS)

# N seeded faults (200) in the middle of runs, and what came of them; SEED: of the first, else 0.
faults: .venv/ready
	$(BIN)/python -m tests.faults $(or $(N),200) $(or $(SEED),0)

# Debian packages for the tests on a real WordPress (root).
test-system:
	tests/wordpress/install-packages.sh

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/ready: pyproject.toml requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Write the locked requirements anew from pyproject.toml (needs `pip install uv`).
LOCK := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.11 --custom-compile-command "make lock" pyproject.toml
lock:
	$(LOCK) --extra speed --extra console -o requirements.txt
	$(LOCK) --all-extras -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf .venv .data .mypy_cache .pytest_cache .ruff_cache dist

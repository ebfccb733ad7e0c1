# `make` lists the targets. Settings that may be given: PYTHON (3.10 or newer; found if left out),
# VENV (where the environment stands), WITH (requirements to install instead of the newest ones,
# as in VENV=.venv-oldest WITH="strands-agents==1.42.0").

SHELL := /bin/sh
VENV ?= .venv
WITH ?=
RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check -qq install
ENGINE := tests/engine
TYPED := $(wildcard src tests docs/examples)

# The wheel, in an environment of its own and away from the sources: two processes of one session.
define SMOKE
from importlib import resources
from strands import Agent
from strands_persql import LocalDatabase, PerSQLSessionManager
from strands_persql.testing import ScriptedModel
package = resources.files("strands_persql")
assert "site-packages" in str(package), package
assert (package / "py.typed").is_file(), "py.typed is missing"
def ask(text, reply):
    with LocalDatabase("smoke.db") as database:
        model, manager = ScriptedModel([reply]), PerSQLSessionManager("smoke", database)
        agent = Agent(model=model, session_manager=manager, callback_handler=None)
        agent(text)
        return len(agent.messages)
assert (ask("Hi, I am Ada.", "Hello."), ask("Who am I?", "Ada.")) == (2, 4)
print("the installed wheel works")
endef
export SMOKE

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types package check bench clean

help:
	@echo "make demo     an agent that goes on after its process was killed; no token, no model key"
	@echo "make test     the tests, on the hosted database's engine too where npm is there"
	@echo "make check    all that CI asks for: lint, types, tests, package"
	@echo "make lint     ruff: rules and format"
	@echo "make format   ruff: put the format and what else it can right"
	@echo "make types    mypy, strict"
	@echo "make package  build sdist and wheel, install the wheel apart and try it"
	@echo "make bench    the benchmarks at full size"
	@echo "make clean    remove environments, builds and caches"

demo: $(VENV)/.installed
	@$(RUN)/python docs/examples/demo.py

test: $(VENV)/.developing engine
	$(RUN)/python -m pytest

bench: $(VENV)/.developing engine
	$(RUN)/python -m pytest tests/benchmarks -m benchmark -s

lint: $(VENV)/.developing
	$(RUN)/ruff check
	$(RUN)/ruff format --check

format: $(VENV)/.developing
	$(RUN)/ruff check --fix
	$(RUN)/ruff format

types: $(VENV)/.developing
	$(RUN)/mypy $(TYPED)

check:
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory package
	@echo "all checks passed"

package: dist/.checked

clean:
	rm -rf .venv .venv-* build dist $(ENGINE)/node_modules .*_cache .hypothesis

# A virtual environment of the first Python that is new enough and has what it takes to make one.
$(VENV)/.made:
	@needs='import sys, ensurepip, sqlite3, venv; sys.exit(sys.version_info < (3, 10))'; \
	for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python3.10 python); do \
		if "$$python" -c "$$needs" 2>/dev/null; then \
			echo "making $(VENV) with $$("$$python" --version)"; \
			"$$python" -m venv --clear $(VENV) && touch $@ && exit 0; \
			exit 1; \
		fi; \
	done; \
	echo "This needs Python 3.10 or newer with its venv and sqlite3 modules, and found none." >&2; \
	echo "Install it (on Debian and Ubuntu: python3 and python3-venv), or name one: make PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	@echo "installing strands-persql into $(VENV)"
	@$(PIP) -e '.[cli]' $(WITH)
	@touch $@

$(VENV)/.developing: $(VENV)/.made pyproject.toml
	@echo "installing strands-persql and its development tools into $(VENV)"
	@$(PIP) -e '.[dev]' $(WITH)
	@touch $(VENV)/.installed $@

# The engine of the hosted database comes as an npm package. Without npm its tests are skipped,
# unless STRANDS_PERSQL_REQUIRE_ENGINE says that they may not be.
.PHONY: engine
engine:
	@if [ ! -f $(ENGINE)/package.json ]; then \
		:; \
	elif command -v npm >/dev/null && command -v node >/dev/null; then \
		$(MAKE) -s --no-print-directory $(ENGINE)/node_modules/.installed; \
	elif [ -n "$$STRANDS_PERSQL_REQUIRE_ENGINE" ]; then \
		echo "STRANDS_PERSQL_REQUIRE_ENGINE is set, but node and npm aren't here: install Node.js." >&2; \
		exit 1; \
	else \
		echo "node and npm aren't here: tests on the hosted database's engine are skipped."; \
		echo "Install Node.js and run this again to include them."; \
	fi

$(ENGINE)/node_modules/.installed: $(ENGINE)/package.json
	@echo "installing the hosted database's engine into $(ENGINE)/node_modules"
	@cd $(ENGINE) && npm install --ignore-scripts --no-package-lock --no-audit --no-fund \
		--no-update-notifier --loglevel=error >/dev/null
	@touch $@

dist/.checked: $(VENV)/.developing pyproject.toml README.md LICENSE $(shell find src -name '*.py' -o -name py.typed)
	@rm -rf dist build/wheel && mkdir -p build
	@echo "building sdist and wheel"
	@$(RUN)/python -m build >build/build.log 2>&1 || { cat build/build.log >&2; exit 1; }
	@echo "installing the wheel into an environment of its own"
	@$(RUN)/python -m venv build/wheel
	@build/wheel/bin/python -m pip --disable-pip-version-check -qq install dist/*.whl $(WITH)
	@cd build/wheel && bin/python -I -W error::ResourceWarning -c "$$SMOKE"
	@rm -rf build/wheel && touch $@
	@ls dist

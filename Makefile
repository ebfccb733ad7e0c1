# `make` lists the targets. Settings that may be given: PYTHON (3.10 or newer; found if left out),
# VENV (where the environment stands), WITH (requirements to install instead of the newest ones,
# as in VENV=.venv-oldest WITH="strands-agents==1.42.0"; `make oldest` is a short word for these).

SHELL := /bin/sh
VENV ?= .venv
WITH ?=
RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check -qq install
ENGINE := tests/engine
APART := build/apart
TYPED := $(wildcard src tests docs/examples)
OLDEST := strands-agents==1.42.0 cachetools==5.3.0 opentelemetry-api==1.30.0 tenacity==9.0.0 urllib3==2.0.2
# Older ones search for minutes through what Strands' dependencies allow.
NEW_PIP := 'pip>=24.1'
UPSTREAM_NEEDS := 'moto>=5.1' 'pytest-asyncio>=1'
# The stores that ours are compared with, and stand-ins for their services.
OTHERS := 'strands-agents-session[dynamodb,mongodb,sql]==0.2.0' bedrock-agentcore==1.25.0 \
	'moto[dynamodb,s3]>=5.1' fakeredis mongomock
# It asks for Python 3.12 and runs on older ones too; fakeredis brings what it needs.
REDIS := --no-deps --ignore-requires-python strands-redis-session-manager==0.1.0

# The wheel, in an environment of its own and away from the sources: two processes of one session.
define SMOKE
import re
from importlib import metadata, resources
from strands import Agent
from strands_persql import LocalDatabase, PerSQLSessionManager, __version__
from strands_persql.testing import ScriptedModel
package = resources.files("strands_persql")
assert "site-packages" in str(package), package
assert (package / "py.typed").is_file(), "py.typed is missing"
assert metadata.version("strands-persql") == __version__, __version__
page = metadata.metadata("strands-persql").get_payload()
assert re.findall(r"\]\((?!https?:|#)[^)]*\)", page) == [], "links of the package's page lead nowhere"
assert "](https://github.com/" in page and page.startswith("# strands-persql"), page[:80]
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
.PHONY: help demo serve docs test compare upstream upstream-oldest oldest test-wheel lint format types package check \
	bench clean

help:
	@echo "make demo     an agent that continues after its process was killed; no token, no model key"
	@echo "make serve    the hosted database's engine on this machine, for a first hosted script"
	@echo "make test     the tests, on the hosted database's engine too where npm is there"
	@echo "make upstream Strands' own tests of sessions, with ours in place of theirs"
	@echo "make compare  the README's comparison with other session stores"
	@echo "make oldest   both of these on the oldest Strands that is supported"
	@echo "make check    all that CI asks for: lint, types, tests, Strands' tests, package"
	@echo "make lint     ruff: rules and format"
	@echo "make format   ruff: put the format and what else it can right"
	@echo "make types    mypy, strict, and pyright on the examples and the public interface"
	@echo "make package  build sdist and wheel, install the wheel apart and try it"
	@echo "make test-wheel  the tests on the built wheel, where the sources are not"
	@echo "make docs     the site of the pages, into build/site; their code is run first"
	@echo "make bench    the benchmarks at full size"
	@echo "make clean    remove environments, builds and caches"

demo: $(VENV)/.installed
	@$(RUN)/python docs/examples/demo.py

serve: $(VENV)/.installed engine
	@$(RUN)/python -m tests.engine

test: $(VENV)/.developing engine
	$(RUN)/python -m pytest

# Strands' tests come with its source distribution, which is fetched from the package index once.
upstream: $(VENV)/.upstream
	@$(RUN)/python -m tests.upstream

compare:
	@$(MAKE) --no-print-directory .venv-compare/.compared VENV=.venv-compare
	@.venv-compare/bin/python -m tests.comparison
	@.venv-compare/bin/python -m pytest -q -m "" tests/comparison

upstream-oldest:
	@$(MAKE) --no-print-directory upstream VENV=.venv-oldest WITH="$(OLDEST)"

oldest:
	@$(MAKE) --no-print-directory test upstream VENV=.venv-oldest WITH="$(OLDEST)"

bench: $(VENV)/.developing engine
	$(RUN)/python -m pytest tests/benchmarks -m benchmark -s

# With what some pages' code needs, so that no page is skipped. Warnings are errors.
docs: $(VENV)/.documenting
	@$(RUN)/python -m pytest -q tests/unit/test_docs.py tests/unit/test_reference.py
	@NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --quiet --strict
	@echo "build/site/index.html is the site"

lint: $(VENV)/.developing
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/lint-imports --no-cache

format: $(VENV)/.developing
	$(RUN)/ruff check --fix
	$(RUN)/ruff format

types: $(VENV)/.developing
	$(RUN)/mypy $(TYPED)
	@if command -v npm >/dev/null && command -v node >/dev/null; then \
		$(RUN)/pyright --pythonpath $(RUN)/python; \
	else \
		echo "node and npm aren't here: pyright is left out"; \
	fi

check:
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory upstream
	@$(MAKE) --no-print-directory package
	@echo "all checks passed"

package: dist/.checked

# What a release publishes: the wheel in dist/ as it is, and the tests that the sdist there carries.
test-wheel: $(VENV)/.made
	@ls dist/*.whl dist/*.tar.gz >/dev/null 2>&1 || { echo "dist/ is empty: make package first" >&2; exit 1; }
	@rm -rf $(APART) && mkdir -p $(APART)
	@tar -xzf dist/*.tar.gz -C $(APART) --strip-components=1 && rm -rf $(APART)/src
	@echo "installing the wheel into an environment of its own"
	@$(RUN)/python -m venv $(APART)/.venv
	@$(APART)/.venv/bin/python -m pip --disable-pip-version-check -qq install $(NEW_PIP)
	@$(APART)/.venv/bin/python -m pip --disable-pip-version-check -qq install \
		"$$(ls $$PWD/dist/*.whl)[dev]" $(WITH)
	@$(MAKE) -s --no-print-directory -C $(APART) engine
	@cd $(APART) && .venv/bin/python -m pytest

clean:
	rm -rf .venv .venv-* build dist $(ENGINE)/node_modules .*_cache .hypothesis

# A virtual environment of the first Python that is new enough and has what it takes to make one.
$(VENV)/.made:
	@needs='import sys, ensurepip, sqlite3, venv; sys.exit(sys.version_info < (3, 10))'; \
	for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python3.10 python); do \
		if "$$python" -c "$$needs" 2>/dev/null; then \
			echo "making $(VENV) with $$("$$python" --version)"; \
			"$$python" -m venv --clear $(VENV) && $(PIP) $(NEW_PIP) && touch $@ && exit 0; \
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

$(VENV)/.documenting: $(VENV)/.developing
	@echo "installing what the pages and their site need into $(VENV)"
	@$(PIP) -e '.[dev,docs]' $(WITH)
	@touch $@

$(VENV)/.upstream: $(VENV)/.developing
	@echo "installing what Strands' tests need into $(VENV)"
	@$(PIP) $(UPSTREAM_NEEDS)
	@touch $@

$(VENV)/.compared: $(VENV)/.developing
	@echo "installing other session stores into $(VENV)"
	@$(PIP) $(OTHERS)
	@$(PIP) $(REDIS)
	@touch $@

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
	@build/wheel/bin/python -m pip --disable-pip-version-check -qq install $(NEW_PIP)
	@build/wheel/bin/python -m pip --disable-pip-version-check -qq install dist/*.whl $(WITH)
	@cd build/wheel && bin/python -I -W error::ResourceWarning -c "$$SMOKE"
	@rm -rf build/wheel && touch $@
	@ls dist

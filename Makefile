# Every target sets up what it needs (virtual environments under .venv*, Debian packages where this
# is run as root) and can be run in a fresh clone. Python 3.11, pip and make must be there.

STORE ?= lmdb
SQLALCHEMY ?= 2.0
SUITE ?= db v2
DURATION ?= 30
PYTHON ?= python3
PYTEST_ARGS ?=

environment = $(PYTHON) scripts/environment.py
glance_environment = .venv-glance$(subst 2.1,21,$(filter 2.1,$(SQLALCHEMY)))
redis = if [ "$(STORE)" = redis ]; then scripts/system-packages redis-server; fi

.PHONY: help run test check fuzz prove conformance-sqlalchemy conformance-glance bench-glance clean

help:
	@echo "make run [STORE=lmdb|redis] [KEEP=1]           real Glance on ROME, over HTTP"
	@echo "make test [PYTEST_ARGS=...]                    the tests"
	@echo "make check                                     ruff, mypy, layers"
	@echo "make fuzz                                      the long differential test against SQLite"
	@echo "make prove STORE=memory|lmdb|redis [DURATION=30]  tries to prove serializability wrong"
	@echo "make conformance-sqlalchemy STORE=... [SQLALCHEMY=1.4|2.0|2.1]"
	@echo "make conformance-glance STORE=... [SUITE='db v2'] [TESTS=pattern] [SQLALCHEMY=2.0|2.1]"
	@echo "make bench-glance                              ROME beside SQLite and MariaDB"

run:
	@$(redis)
	@$(environment) glance-$(SQLALCHEMY)
	@$(glance_environment)/bin/python demo/run.py --store $(STORE) $(if $(KEEP),--keep)

test:
	@scripts/system-packages redis-server
	@$(environment) dev
	.venv/bin/python -m pytest $(PYTEST_ARGS)

check:
	@$(environment) dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

fuzz:
	@scripts/system-packages redis-server
	@$(environment) dev
	ROME_FUZZ=long .venv/bin/python -m pytest tests/differential --timeout=0 $(PYTEST_ARGS)

prove:
	@$(redis)
	@$(environment) dev
	.venv/bin/python -W error -m proof.run --store $(STORE) --duration $(DURATION)

conformance-sqlalchemy:
	@$(redis)
	@$(environment) sqlalchemy-$(SQLALCHEMY)
	@$(PYTHON) conformance/sqlalchemy/run.py --store $(STORE) --sqlalchemy $(SQLALCHEMY)

conformance-glance:
	@$(redis)
	@$(environment) glance-$(SQLALCHEMY)
	@$(glance_environment)/bin/python conformance/glance/run.py --store $(STORE) $(if $(TESTS),--tests '$(TESTS)') $(SUITE)

bench-glance:
	@scripts/system-packages redis-server mariadb-server
	@$(environment) glance-$(SQLALCHEMY)
	@$(glance_environment)/bin/python bench/glance/run.py

clean:
	rm -rf build dist .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

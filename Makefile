# Every target sets up what it needs (virtual environments under .venv*, Debian packages where this
# is run as root) and can be run in a fresh clone. Python 3.11, pip and make must be there.

STORE ?= lmdb
SQLALCHEMY ?= 2.0
SUITE ?= db v2
DURATION ?= 30
TRIES ?= 500
PYTHON ?= python3
PYTEST_ARGS ?=

environment = $(PYTHON) scripts/environment.py
glance_environment = .venv-glance$(subst 2.1,21,$(filter 2.1,$(SQLALCHEMY)))
headers = libldap2-dev libsasl2-dev
redis = if [ "$(STORE)" = redis ]; then scripts/system-packages redis-server; fi

.PHONY: help run test check fuzz prove contention faults conformance-sqlalchemy conformance-glance conformance-openstack commands cloud cloud-races cloud-down bench-glance clean

help:
	@echo "make run [STORE=lmdb|redis] [KEEP=1]           real Glance on ROME, over HTTP"
	@echo "make test [PYTEST_ARGS=...]                    the tests"
	@echo "make check                                     ruff, mypy, layers"
	@echo "make fuzz                                      the long differential test against SQLite"
	@echo "make prove STORE=memory|lmdb|redis [DURATION=30] [TRIES=500]  tries to prove serializability wrong"
	@echo "make contention STORE=memory|lmdb|redis         how often writers meet, and what programs see of it"
	@echo "make faults [STORE=lmdb|redis|all] [ONLY=name]  breaks processes, servers, networks and disks while ROME works"
	@echo "make conformance-sqlalchemy STORE=... [SQLALCHEMY=1.4|2.0|2.1]"
	@echo "make conformance-glance STORE=... [SUITE='db v2'] [TESTS=pattern] [SQLALCHEMY=2.0|2.1]"
	@echo "make conformance-openstack SERVICE=nova|keystone|placement|neutron|cinder|glance STORE=... [TESTS=pattern] [TENTH=1]"
	@echo "make commands STORE=lmdb|redis [SERVICES=...]   the services' own commands and migrations"
	@echo "make cloud STORE=lmdb|redis [KEEP=1] [RACES=1]    six services of OpenStack on ROME boot servers"
	@echo "make cloud-races [STORE=...] [SERVERS=100]     100 servers at once, on that cloud or a new one"
	@echo "make cloud-down                                ends a cloud that was kept"
	@echo "make bench-glance                              ROME beside SQLite and MariaDB"

run:
	@$(redis)
	@$(environment) glance-$(SQLALCHEMY)
	@$(glance_environment)/bin/python demo/run.py --store $(STORE) $(if $(KEEP),--keep)

test:
	@scripts/system-packages redis-server $(headers)
	@$(environment) dev
	@$(environment) openstack
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
	.venv/bin/python -W error -m proof.run --store $(STORE) --duration $(DURATION) --tries $(TRIES)

contention:
	@$(redis)
	@$(environment) dev
	.venv/bin/python -W error -m proof.run --store $(STORE) --parts contention

# All stores, unless one is named.
faults: STORE = all
faults:
	@$(if $(filter lmdb memory,$(STORE)),,scripts/system-packages redis-server)
	@$(environment) dev
	.venv/bin/python -W error -m faults.run --store $(STORE) $(if $(ONLY),--only '$(ONLY)') $(if $(TIMES),--times $(TIMES)) $(if $(SEED),--seed $(SEED))

conformance-sqlalchemy:
	@$(redis)
	@$(environment) sqlalchemy-$(SQLALCHEMY)
	@$(PYTHON) conformance/sqlalchemy/run.py --store $(STORE) --sqlalchemy $(SQLALCHEMY)

conformance-glance:
	@$(redis)
	@$(environment) glance-$(SQLALCHEMY)
	@$(glance_environment)/bin/python conformance/glance/run.py --store $(STORE) $(if $(TESTS),--tests '$(TESTS)') $(SUITE)

commands:
	@scripts/system-packages $(headers) $(if $(filter redis,$(STORE)),redis-server)
	@$(environment) openstack
	@.venv-openstack/bin/python -W ignore conformance/commands/run.py --store $(STORE) $(if $(SERVICES),--services '$(SERVICES)')

conformance-openstack:
ifeq ($(SERVICE),glance)
	@$(MAKE) --no-print-directory conformance-glance
else
	@scripts/system-packages $(headers) $(if $(filter redis,$(STORE)),redis-server)
	@$(environment) openstack
	@.venv-openstack/bin/python conformance/openstack/run.py --service $(SERVICE) --store $(STORE) $(if $(TESTS),--tests '$(TESTS)') $(if $(TENTH),--tenth)
endif

cloud:
	@scripts/system-packages $(headers) rabbitmq-server $(if $(filter redis,$(STORE)),redis-server)
	@$(environment) openstack
	@.venv-openstack/bin/python -W ignore -m cloud up --store $(STORE) $(if $(KEEP),--keep) $(if $(RACES),--races) $(if $(SERVERS),--servers $(SERVERS))

cloud-races:
	@scripts/system-packages $(headers) rabbitmq-server $(if $(filter redis,$(STORE)),redis-server)
	@$(environment) openstack
	@.venv-openstack/bin/python -W ignore -m cloud races --store $(STORE) $(if $(SERVERS),--servers $(SERVERS))

cloud-down:
	@.venv-openstack/bin/python -W ignore -m cloud down

bench-glance:
	@scripts/system-packages redis-server mariadb-server
	@$(environment) glance-$(SQLALCHEMY)
	@$(glance_environment)/bin/python bench/glance/run.py

clean:
	rm -rf build dist .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

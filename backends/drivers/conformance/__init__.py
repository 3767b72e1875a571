"""
The conformance suite: what every driver promises, tried out on a real pool.

Run by the tests against every driver, and by `manage.py validate_backend` against an administrator's own
pool.  It touches only objects whose names begin with `volmig-validate-`, the time and a random part, and
removes them again, also when it is interrupted; what a run that was killed has left, a later one removes.
"""

from backends.drivers.conformance.bench import NAME_PREFIX, Bench, Peer, PromiseBroken, PromiseSkipped
from backends.drivers.conformance.leftovers import Leftovers, is_left, remove_leftovers
from backends.drivers.conformance.promises import PROMISES
from backends.drivers.conformance.runner import PromiseResult, run_promises

__all__ = [
    "NAME_PREFIX",
    "PROMISES",
    "Bench",
    "Leftovers",
    "Peer",
    "PromiseBroken",
    "PromiseResult",
    "PromiseSkipped",
    "is_left",
    "remove_leftovers",
    "run_promises",
]

"""
The conformance suite: what every driver promises, tried out on a real pool.

Run by the tests against every driver, and by `manage.py validate_backend` against an administrator's own
pool.  It touches only objects whose names begin with `volmig-validate-` and a random part, and removes
them again.
"""

from backends.drivers.conformance.bench import NAME_PREFIX, Bench, Peer, PromiseBroken, PromiseSkipped
from backends.drivers.conformance.promises import PROMISES
from backends.drivers.conformance.runner import PromiseResult, run_promises

__all__ = [
    "NAME_PREFIX",
    "PROMISES",
    "Bench",
    "Peer",
    "PromiseBroken",
    "PromiseResult",
    "PromiseSkipped",
    "run_promises",
]

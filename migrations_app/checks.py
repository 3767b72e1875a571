"""Settings that would break a promise are refused before anything starts."""

from __future__ import annotations

import shutil
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning

from migrations_app.remote import doors


@register()
def queue_settings(app_configs: Any, **kwargs: Any) -> list[Error]:
    """Return an error for each queue setting under which a migration could hang or run twice."""
    q, problems = settings.Q_CLUSTER, []
    if q["retry"] <= q["timeout"]:
        problems.append(
            Error(
                f"Q_CLUSTER retry ({q['retry']} s) must be longer than timeout ({q['timeout']} s).",
                hint="The queue would hand out a task again while it is still running.",
                id="volmig.E001",
            )
        )
    if q["timeout"] <= settings.VOLMIG_SLICE_SECONDS:
        problems.append(
            Error(
                f"VOLMIG_SLICE_SECONDS ({settings.VOLMIG_SLICE_SECONDS}) must be shorter than Q_CLUSTER timeout "
                f"({q['timeout']}).",
                hint="The queue would kill a worker in the middle of a copy.",
                id="volmig.E002",
            )
        )
    if settings.VOLMIG_LEASE_SECONDS < 6:
        problems.append(
            Error(
                f"VOLMIG_LEASE_SECONDS ({settings.VOLMIG_LEASE_SECONDS}) must be 6 or more.",
                hint="A short pause of the worker would cost it the migration.",
                id="volmig.E003",
            )
        )
    if q.get("sync"):
        problems.append(
            Error(
                "Q_CLUSTER sync must be off.", hint="The web server would do the copying.", id="volmig.E004"
            )
        )
    if settings.DATABASES["default"].get("OPTIONS", {}).get("pool"):
        problems.append(
            Error(
                "The connection pool of psycopg must be off.",
                hint="Worker processes are forked and would share its connections.",
                id="volmig.E005",
            )
        )
    return problems


@register()
def storage_address(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong with the address on which volumes are served to other hosts."""
    address = settings.VOLMIG_STORAGE_ADDRESS
    if settings.VOLMIG_EXPORT not in doors.KINDS:
        return [
            Error(
                f"VOLMIG_EXPORT is '{settings.VOLMIG_EXPORT}'.",
                hint=f"Write one of: {', '.join(doors.KINDS)}.",
                id="volmig.E008",
            )
        ]
    if not address:
        return []
    if address in ("0.0.0.0", "::", "*"):  # noqa: S104
        return [
            Error(
                f"VOLMIG_STORAGE_ADDRESS ({address}) must be one address of this host.",
                hint="Other hosts connect to it, and volumes are served on the storage network only.",
                id="volmig.E006",
            )
        ]
    tools = ["nbdkit", "setpriv", *(["tgtd"] if settings.VOLMIG_EXPORT == doors.ISCSI else [])]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return [
        CheckWarning(
            f"VOLMIG_STORAGE_ADDRESS is set, but the tool '{tool}' is not on this host.",
            hint="Without it no volume can come from another host. "
            "On Debian: apt-get install nbdkit util-linux (and tgt for iscsi).",
            id="volmig.W007",
        )
        for tool in missing
    ]

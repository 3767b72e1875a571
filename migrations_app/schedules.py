"""The periodic work of one host, as django-q2 schedules."""

from __future__ import annotations

from django_q.models import Schedule

_EVERY_MINUTE = ("refresh", "sweep")


def ensure_schedules(host: str) -> None:
    """Make sure that *host*'s worker refreshes statistics and sweeps every minute.  Safe to repeat: yes."""
    for name in _EVERY_MINUTE:
        Schedule.objects.update_or_create(
            name=f"{name} {host}",
            defaults={
                "func": f"migrations_app.tasks.{name}",
                "schedule_type": Schedule.MINUTES,
                "minutes": 1,
                "repeats": -1,
                "cluster": host,
            },
        )

"""What a person may do with a migration: one table, one form each where something is asked, one service each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms

from backends.drivers.types import GIB, KIB, MIB
from migrations_app import services
from migrations_app.models import VolumeMigration

_CANCEL = "migrations_app.cancel_migration"
_MIGRATE = "migrations_app.migrate_volume"
_DECIDE = "migrations_app.decide_migration"


class LimitForm(forms.Form):
    """A new bandwidth limit."""

    limit = forms.DecimalField(
        required=False, min_value=0, max_value=2**30, help_text="Empty: as fast as it goes."
    )
    unit = forms.TypedChoiceField(
        coerce=int, choices=[(KIB, "KiB/s"), (MIB, "MiB/s"), (GIB, "GiB/s")], initial=MIB
    )


class HoursForm(forms.Form):
    """How much longer a source is kept."""

    hours = forms.IntegerField(min_value=1, max_value=8760, initial=24, label="Hours longer")


class RollBackForm(forms.Form):
    """Whether what was written meanwhile may be lost."""

    accepts_loss = forms.BooleanField(
        required=False,
        label="Roll back even if the volume was written to since it was moved; those writes are lost to it",
    )


class ResolveForm(forms.Form):
    """An operator's word about where the data is.  *has_switched*: the record has moved already."""

    truth = forms.ChoiceField(widget=forms.RadioSelect, label="Where the volume's data is")
    typed_name = forms.CharField(label="Type the volume's name", widget=forms.TextInput(attrs={"size": 50}))

    def __init__(self, *args: Any, has_switched: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        truth = services.Truth
        self.fields["truth"].choices = (
            [(truth.SETTLED.value, "At the destination; what was left at the source is tidied up by hand")]
            if has_switched
            else [
                (truth.AT_SOURCE.value, "At the source: the record stays as it is"),
                (truth.AT_DESTINATION.value, "At the destination: let the record point there"),
            ]
        )


@dataclass(frozen=True, slots=True)
class Verb:
    """One button.  `question` and `sentences` may name the volume, the source and the destination."""

    name: str
    label: str
    question: str
    sentences: tuple[str, ...]
    done: str
    permission: str
    do: Callable[[VolumeMigration, services.Actor, dict[str, Any]], VolumeMigration]
    form: type[forms.Form] | None = None
    is_danger: bool = False
    is_primary: bool = False

    def make_form(self, migration: VolumeMigration, data: Any) -> forms.Form | None:
        if self.form is ResolveForm:
            return ResolveForm(data, has_switched=not migration.locks_volume)
        return self.form(data) if self.form else None


def _limit(data: dict[str, Any]) -> int | None:
    return int(data["limit"] * data["unit"]) or None if data["limit"] else None


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "finish", "Finish", "Finish the migration of '{volume}'?",
            ("The complete, checked copy at {destination} is used: the record is switched to it.",),
            "The migration goes on.", _DECIDE,
            lambda m, actor, data: services.finish_migration(m, actor), is_primary=True,
        ),
        Verb(
            "retry", "Try again", "Try the migration of '{volume}' again?",
            ("It is moved from {source} to {destination} with the same options.",),
            "It is tried again.", _MIGRATE,
            lambda m, actor, data: services.retry_migration(m, actor), is_primary=True,
        ),
        Verb(
            "resume", "Resume", "Resume the migration of '{volume}'?",
            ("It goes on from its last checkpoint.",),
            "It goes on.", _CANCEL,
            lambda m, actor, data: services.resume_migration(m, actor), is_primary=True,
        ),
        Verb(
            "pause", "Pause", "Pause the migration of '{volume}'?",
            ("It stands still at its next checkpoint and keeps what was copied.",
             "The volume stays locked until it is resumed or cancelled."),
            "It stands still at the next checkpoint.", _CANCEL,
            lambda m, actor, data: services.pause_migration(m, actor),
        ),
        Verb(
            "set_bandwidth", "Limit", "Limit the copy of '{volume}'?",
            ("A running copy feels it within a second.",),
            "The limit was changed.", _CANCEL,
            lambda m, actor, data: services.set_bandwidth(m, _limit(data), actor), form=LimitForm,
        ),
        Verb(
            "roll_back", "Roll back", "Roll '{volume}' back to {source}?",
            ("The record points at the kept source again, and the copy at {destination} is removed.",),
            "The volume is at its source again.", _DECIDE,
            lambda m, actor, data: services.roll_back(m, actor, accepts_loss=data["accepts_loss"]),
            form=RollBackForm, is_danger=True,
        ),
        Verb(
            "keep_longer", "Keep longer", "Keep the old copy of '{volume}' longer?",
            ("It is deleted later than planned; until then there is a way back.",),
            "The old copy is kept longer.", _DECIDE,
            lambda m, actor, data: services.keep_longer(m, data["hours"], actor), form=HoursForm,
        ),
        Verb(
            "purge_now", "Delete the old copy", "Delete the old copy of '{volume}' now?",
            ("There is no way back then.",),
            "The old copy is deleted.", _DECIDE,
            lambda m, actor, data: services.purge_now(m, actor), is_danger=True,
        ),
        Verb(
            "resolve", "Resolve by hand", "Say where the data of '{volume}' is",
            ("Look at both storages first: {source} and {destination}.", "Nothing is deleted anywhere."),
            "The migration was resolved.", _DECIDE,
            lambda m, actor, data: services.resolve_migration(
                m, services.Truth(data["truth"]), actor, typed_name=data["typed_name"]
            ),
            form=ResolveForm, is_danger=True,
        ),
        Verb(
            "cancel", "Cancel", "Cancel the migration of '{volume}'?",
            ("What was copied to {destination} is deleted.",
             "The volume stays where it is, at {source}, and can be used at once."),
            "Cancelling: what was made is removed.", _CANCEL,
            lambda m, actor, data: services.cancel_migration(m, actor), is_danger=True,
        ),
    )
}  # fmt: skip


def allowed_verbs(migration: VolumeMigration, user: Any) -> list[Verb]:
    """Return what can be done with *migration* now and *user* may do, in the table's order."""
    possible = set(services.verbs_for(migration))
    return [verb for verb in VERBS.values() if verb.name in possible and user.has_perm(verb.permission)]

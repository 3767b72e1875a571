"""How migrations are shown.  Nothing is written here: the verbs are calls of the services."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from rest_framework import serializers

from migrations_app import presentation, services
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.states import MigrationStatus, State

#: Verbs whose address has another name.
_PATHS = {"set_bandwidth": "bandwidth"}


class JournalEntrySerializer(serializers.ModelSerializer):
    """One line of a migration's journal."""

    class Meta:
        model = JournalEntry
        fields = ["id", "at", "epoch", "step", "kind", "output", "text", "actor"]


class ProgressSerializer(serializers.Serializer):
    """How far it is.  Null is unknown; numbers are never made up."""

    state_text = serializers.CharField()
    phase_label = serializers.CharField()
    done_bytes = serializers.IntegerField(allow_null=True)
    total_bytes = serializers.IntegerField(allow_null=True)
    percent = serializers.IntegerField(allow_null=True, help_text="Of the phase; 100 only when it has moved.")
    bytes_per_second = serializers.IntegerField(allow_null=True)
    eta_seconds = serializers.FloatField(allow_null=True)
    attempts = serializers.IntegerField()
    is_resumed = serializers.BooleanField()


class StepSerializer(serializers.Serializer):
    """One step of the migration."""

    name = serializers.CharField()
    label = serializers.CharField()
    status = serializers.ChoiceField(choices=["waiting", "running", "done", "failed", "undone"])
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    text = serializers.CharField()


class ErrorSerializer(serializers.Serializer):
    """What went wrong last."""

    code = serializers.CharField()
    text = serializers.CharField()


class MigrationLinksSerializer(serializers.Serializer):
    """Paths of what belongs to a migration."""

    self = serializers.CharField()
    events = serializers.CharField()
    report = serializers.CharField()
    cancel = serializers.CharField()
    volume = serializers.CharField(allow_null=True)
    verbs = serializers.DictField(child=serializers.CharField(), help_text="Verb to the path to POST to.")


class MigrationSerializer(serializers.Serializer):
    """A migration: what was asked, how far it is, where the data is."""

    id = serializers.UUIDField()
    volume = serializers.UUIDField(allow_null=True)
    volume_name = serializers.CharField()
    size_bytes = serializers.IntegerField()
    source = serializers.CharField(help_text="HOST@BACKEND#POOL")
    source_object_name = serializers.CharField()
    destination = serializers.CharField(help_text="HOST@BACKEND#POOL")
    destination_object_name = serializers.CharField()
    state = serializers.ChoiceField(choices=[s.value for s in State])
    migration_status = serializers.ChoiceField(choices=[s.value for s in MigrationStatus], allow_null=True)
    method = serializers.CharField(help_text="`generic copy`, or how the storage moved it; empty: not yet.")
    progress = ProgressSerializer()
    steps = StepSerializer(many=True)
    error = ErrorSerializer(allow_null=True)
    data_location = serializers.CharField(help_text="Where the data is, in a sentence.")
    source_state = serializers.ChoiceField(choices=VolumeMigration.Source.values)
    purge_after = serializers.DateTimeField(allow_null=True, help_text="When a kept source is deleted.")
    verify = serializers.ChoiceField(choices=VolumeMigration.Verify.values)
    verification = serializers.CharField(
        help_text="`equal`, `not verified`, `moved by the storage` or `not reached`."
    )
    warning = serializers.CharField(help_text="What must not be overlooked; empty when there is nothing.")
    source_digest = serializers.CharField()
    destination_digest = serializers.CharField()
    data_bytes = serializers.IntegerField(allow_null=True)
    zero_bytes = serializers.IntegerField(allow_null=True)
    hole_bytes = serializers.IntegerField(allow_null=True)
    force_host_copy = serializers.BooleanField()
    delete_source = serializers.BooleanField()
    bandwidth_bytes_per_second = serializers.IntegerField(allow_null=True)
    requested_by = serializers.CharField()
    requested_via = serializers.ChoiceField(choices=VolumeMigration.Via.values)
    retry_of = serializers.UUIDField(allow_null=True, help_text="The migration that this one tries again.")
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    pause_requested_at = serializers.DateTimeField(allow_null=True)
    retry_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    verbs = serializers.ListField(
        child=serializers.CharField(),
        help_text="What its state allows now, the likeliest first; whether you may is another question.",
    )
    _links = MigrationLinksSerializer()

    def to_representation(self, instance: VolumeMigration) -> dict[str, Any]:
        verbs = services.verbs_for(instance)
        links = {
            "self": reverse("migration-detail", args=[instance.pk]),
            "events": reverse("migration-events", args=[instance.pk]),
            "report": reverse("migration-report", args=[instance.pk]),
            "cancel": reverse("migration-cancel", args=[instance.pk]),
            "volume": reverse("volume-detail", args=[instance.volume_id]) if instance.volume_id else None,
            "verbs": {verb: _verb_path(verb, instance) for verb in verbs},
        }
        return super().to_representation({**presentation.summary(instance), "verbs": verbs, "_links": links})


def _verb_path(verb: str, migration: VolumeMigration) -> str:
    name = _PATHS.get(verb, verb.replace("_", "-"))
    return reverse(f"migration-{name}", args=[migration.pk])

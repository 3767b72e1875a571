"""
May the volume be moved at all?  The answer is the same for every destination, so it is given once.

A rule returns a reason for each cause it finds, an empty list otherwise; every rule is asked, so that the
administrator sees all causes together instead of one after each attempt.  Source of the causes: cinder
`volume/api.py` `migrate_volume`; what the storage itself says (snapshots, use, size) and the state of the
source backend are not looked at there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from migrations_app.scheduler.codes import Code
from migrations_app.scheduler.human import count_text, differing_texts, list_text, sentence, without_period
from migrations_app.scheduler.types import Category, MoveRequest, Reason
from migrations_app.states import MigrationStatus

VolumeRule = Callable[[MoveRequest], list[Reason]]

_AVAILABLE = "available"
_IN_USE = "in-use"
_MAINTENANCE = "maintenance"

#: For each status of Cinder's volumes: what it means for a move, and what helps.
_STATUS_SENTENCES: dict[str, tuple[str, str]] = {
    "creating": ("it is still being created", "Wait until it is available."),
    "deleting": ("it is being deleted", "There is nothing to move; choose another volume."),
    "error": ("an earlier operation failed", "Look at the storage, then set the status to available."),
    "error_deleting": ("deleting it failed half-way", "Finish the deletion; do not move what is half gone."),
    "error_extending": ("extending it failed", "Compare its size on the storage, then set the status right."),
    "error_restoring": ("restoring it failed", "Restore it again, or set the status to available."),
    _IN_USE: ("it is marked in use although no attachment is known", "Detach it, or set the status right."),
    _MAINTENANCE: ("another operation holds it", "Wait for that operation, or set the status to available."),
    "attaching": ("it is being attached", "Wait, then detach it."),
    "detaching": ("it is being detached", "Wait until it is available."),
    "reserved": ("somebody has reserved it for an attachment", "Release the reservation."),
    "extending": ("it is being extended", "Wait until it is available."),
    "retyping": ("its type is being changed", "Wait until it is available."),
    "backing-up": ("it is being backed up", "Wait until the backup is done."),
    "restoring-backup": ("a backup is being restored into it", "Wait until the restore is done."),
    "downloading": ("an image is being written into it", "Wait until it is available."),
    "uploading": ("it is being uploaded as an image", "Wait until the upload is done."),
    "awaiting-transfer": ("it is offered to another owner", "Finish or withdraw the transfer."),
}
_OTHER_STATUS = ("only available volumes are moved", "Bring the volume to available first.")

_ACTIVE = frozenset({MigrationStatus.STARTING, MigrationStatus.MIGRATING, MigrationStatus.COMPLETING})
_TARGET_PREFIX = "target:"


def is_available(request: MoveRequest) -> list[Reason]:
    """
    The status must be `available`; where a rule below names the cause of another status, that one speaks.
    """
    volume = request.volume
    explained = (volume.status == _IN_USE and volume.attachments) or (
        volume.status == _MAINTENANCE and volume.locked_by_migration
    )
    if volume.status == _AVAILABLE or explained:
        return []
    meaning, remedy = _STATUS_SENTENCES.get(volume.status, _OTHER_STATUS)
    return [_reason(Code.VOLUME_NOT_AVAILABLE, f"The volume is '{volume.status}': {meaning}.", remedy)]


def is_detached(request: MoveRequest) -> list[Reason]:
    """Nobody may have it attached: what is written behind the copy's back would be lost."""
    where = request.volume.attachments
    if not where:
        return []
    return [_reason(Code.ATTACHED, f"The volume is attached to {list_text(where)}.", "Detach it everywhere.")]


def has_no_snapshots(request: MoveRequest) -> list[Reason]:
    """A copy takes the volume alone: its snapshots would stay behind without it."""
    names = request.volume.snapshots
    if not names:
        return []
    text = (
        f"The volume has {count_text(len(names), 'snapshot')} ({list_text(names)}), and snapshots are not "
        "moved."
    )
    return [_reason(Code.HAS_SNAPSHOTS, text, "Delete the snapshots.")]


def has_no_snapshots_on_storage(request: MoveRequest) -> list[Reason]:
    """Snapshots that the storage holds count too, whoever made them."""
    names = request.volume.facts.snapshots
    if not names:
        return []
    text = (
        f"The storage holds {count_text(len(names), 'snapshot')} of the volume ({list_text(names)}), and "
        "snapshots "
        "are not moved."
    )
    return [_reason(Code.SNAPSHOTS_ON_STORAGE, text, "Delete the snapshots on the storage.")]


def is_not_migrating(request: MoveRequest) -> list[Reason]:
    """One migration at a time."""
    volume = request.volume
    if volume.locked_by_migration:
        text = f"Migration {volume.locked_by_migration} is moving the volume already."
        return [_reason(Code.ALREADY_MIGRATING, text, "Wait until it has ended, or cancel it.")]
    status = volume.migration_status or ""
    if status.startswith(_TARGET_PREFIX):
        text = (
            f"The volume is the destination of the migration of volume {status.removeprefix(_TARGET_PREFIX)}."
        )
        return [_reason(Code.ALREADY_MIGRATING, text, "Wait until that migration has ended, or cancel it.")]
    if status in _ACTIVE:
        text = f"The volume's migration_status is '{status}', yet no running migration holds it."
        remedy = "Look at its last migration and resolve that one."
        return [_reason(Code.UNFINISHED_MIGRATION, text, remedy)]
    return []


def is_unused_on_storage(request: MoveRequest) -> list[Reason]:
    """
    The storage is believed before the record: somebody may have opened the volume past this application.
    """
    usage = request.volume.facts.usage
    if not usage:
        return []
    quoted = list_text([f"'{use}'" for use in usage], shown=len(usage))
    return [
        _reason(
            Code.IN_USE_ON_STORAGE,
            f"The storage reports the volume in use: {quoted}.",
            "End what uses it, then check again.",
        )
    ]


def exists_on_storage(request: MoveRequest) -> list[Reason]:
    """There must be something to move."""
    missing = request.volume.facts.missing
    if not missing:
        return []
    text = f"The volume is not on the storage at {request.volume.pool}: {without_period(missing)}."
    return [
        _reason(Code.MISSING_ON_STORAGE, text, "Bring it back under its name, or delete the volume's record.")
    ]


def size_agrees(request: MoveRequest) -> list[Reason]:
    """A record of another size would cut the data off, or add what was never there."""
    volume = request.volume
    actual = volume.facts.size_bytes
    if actual is None or actual == volume.size_bytes:
        return []
    recorded_text, actual_text = differing_texts(volume.size_bytes, actual)
    text = f"The volume's record says {recorded_text}, the storage says {actual_text}."
    return [
        _reason(Code.SIZE_DIFFERS, text, f"Find out which is right; record {actual} B if the storage is.")
    ]


def source_is_up(request: MoveRequest) -> list[Reason]:
    """Cinder never checks this: there a request to a dead source waits in a queue until that host returns."""
    volume = request.volume
    if volume.source_is_up:
        return []
    why = sentence(volume.source_down_reason or "it does not report")
    return [
        _reason(
            Code.SOURCE_DOWN,
            f"The source backend {volume.pool.without_pool} is down: {why}",
            f"Start the worker on host {volume.pool.host}, or run `manage.py refresh_backends` there.",
        )
    ]


#: In the order in which an administrator would look.
VOLUME_RULES: tuple[VolumeRule, ...] = (
    is_not_migrating,
    is_available,
    is_detached,
    has_no_snapshots,
    source_is_up,
    exists_on_storage,
    size_agrees,
    is_unused_on_storage,
    has_no_snapshots_on_storage,
)


def storage_was_asked(request: MoveRequest) -> list[Reason]:
    """
    A warning when the storage could not be asked.

    Not a reason against: only the source's own host can look, and its worker does before anything is made.
    """
    unavailable = request.volume.facts.unavailable_reason
    if not unavailable:
        return []
    host = request.volume.pool.host
    text = (
        f"The volume could not be checked on its storage now ({without_period(unavailable)}); the worker of "
        "host "
        f"{host} checks it before anything is made."
    )
    return [_reason(Code.NOT_CHECKED, text, f"Start the worker on host {host} to have it checked now.")]


def check_volume(
    request: MoveRequest, *, rules: Sequence[VolumeRule] = VOLUME_RULES
) -> tuple[tuple[Reason, ...], tuple[Reason, ...]]:
    """Return every reason why the volume cannot be moved anywhere, and the warnings."""
    reasons = tuple(reason for rule in rules for reason in rule(request))
    return reasons, tuple(storage_was_asked(request))


def _reason(code: Code, text: str, remedy: str) -> Reason:
    return Reason(code, Category.VOLUME, text, remedy)

"""
Every code that a reason or a warning of the scheduler may carry.  Codes are stable: programs compare them.
"""

from __future__ import annotations

import enum


class Code(enum.StrEnum):
    """What a reason says, for programs.  An administrator's own filter may use codes of its own."""

    # The volume itself: the same for every destination.
    VOLUME_NOT_AVAILABLE = "volume_not_available"
    ATTACHED = "attached"
    HAS_SNAPSHOTS = "has_snapshots"
    SNAPSHOTS_ON_STORAGE = "snapshots_on_storage"
    ALREADY_MIGRATING = "already_migrating"
    UNFINISHED_MIGRATION = "unfinished_migration"
    IN_USE_ON_STORAGE = "in_use_on_storage"
    MISSING_ON_STORAGE = "missing_on_storage"
    SIZE_DIFFERS = "size_differs"
    SOURCE_DOWN = "source_down"

    # The destination as it stands.
    UNKNOWN_DESTINATION = "unknown_destination"
    ALREADY_THERE = "already_there"
    SAME_PLACE = "same_place"
    POOL_DISABLED = "pool_disabled"
    POOL_DOWN = "pool_down"
    READ_ONLY = "read_only"
    FILTER_FAILED = "filter_failed"

    # Where it stands.
    HOST_AWAY = "host_away"
    NO_STORAGE_ADDRESS = "no_storage_address"
    OTHER_ZONE = "other_zone"
    ZONE_NOT_ALLOWED = "zone_not_allowed"

    # Room.
    NO_SPACE = "no_space"
    OVER_PROVISIONED = "over_provisioned"
    UNKNOWN_FREE_SPACE = "unknown_free_space"
    UNKNOWN_TOTAL_SPACE = "unknown_total_space"
    NO_CAPACITY = "no_capacity"
    RATIO_BELOW_ONE = "ratio_below_one"

    # What the volume's type asks for.
    NO_THICK_PROVISIONING = "no_thick_provisioning"
    MISSING_CAPABILITY = "missing_capability"
    CAPABILITY_DIFFERS = "capability_differs"
    FILTER_FUNCTION_REFUSES = "filter_function_refuses"
    FILTER_FUNCTION_ERROR = "filter_function_error"

    # Warnings: the move is possible.
    NOT_CHECKED = "not_checked"
    ALLOCATION_UNKNOWN = "allocation_unknown"
    BECOMES_FULLY_ALLOCATED = "becomes_fully_allocated"
    NEARLY_FULL = "nearly_full"
    GOODNESS_FUNCTION_ERROR = "goodness_function_error"
    WEIGHER_FAILED = "weigher_failed"

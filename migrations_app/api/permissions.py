"""Who may do what: staff may look, the verbs need their permission."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import IsAdminUser
from rest_framework.request import Request

MIGRATE = "migrations_app.migrate_volume"
CANCEL = "migrations_app.cancel_migration"
SKIP_VERIFICATION = "migrations_app.skip_verification"
DECIDE = "migrations_app.decide_migration"
ATTACH = "backends.attach_volume"
CHANGE_VOLUME = "backends.change_volume"
DELETE_VOLUME = "backends.delete_volume"
ADD_SNAPSHOT = "backends.add_snapshot"
DELETE_SNAPSHOT = "backends.delete_snapshot"


def require(request: Request, permission: str, what: str) -> None:
    """Refuse *what* unless the user has *permission*."""
    if not request.user.has_perm(permission):
        raise PermissionDenied(f"{what} needs the permission '{permission}'.")


class StaffWithPermission(IsAdminUser):
    """Staff; an action named in the view's `action_permissions` needs that permission as well."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not super().has_permission(request, view):
            self.message = "The API is for staff users."
            return False
        needed = getattr(view, "action_permissions", {}).get(getattr(view, "action", None))
        self.message = f"You need the permission '{needed}'."
        return needed is None or request.user.has_perm(needed)

"""
The inventory's admin pages.

Volumes are registered by `migrations_app.admin`: their page offers to migrate them, and nothing here may
import that app's services.
"""

from backends.admin.backend import BackendAdmin
from backends.admin.pool import PoolAdmin
from backends.admin.volume import VolumeAdmin
from backends.admin.volume_type import VolumeTypeAdmin

__all__ = ["BackendAdmin", "PoolAdmin", "VolumeAdmin", "VolumeTypeAdmin"]

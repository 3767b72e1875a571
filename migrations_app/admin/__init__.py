"""The admin pages of migrations, and of volumes, whose list offers to migrate them."""

from migrations_app.admin.migration import MigrationAdmin
from migrations_app.admin.volume import MigratableVolumeAdmin

__all__ = ["MigratableVolumeAdmin", "MigrationAdmin"]

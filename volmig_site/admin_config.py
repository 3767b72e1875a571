"""Django's admin app with this project's site."""

from django.contrib.admin.apps import AdminConfig


class VolmigAdminConfig(AdminConfig):
    """Not in `apps.py`: Django would take it for the configuration of `volmig_site` itself."""

    default_site = "volmig_site.admin_site.VolmigAdminSite"

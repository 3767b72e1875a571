"""What was asked over the API with an `Idempotency-Key`, so that asking again is answered and not done again."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class ApiRequest(models.Model):
    """
    One accepted request.  Written in the transaction that accepts it; a refused one leaves nothing.

    `fingerprint` tells whether a second request with the same key asks for the same.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    migration = models.ForeignKey(
        "migrations_app.VolumeMigration", on_delete=models.CASCADE, related_name="api_requests"
    )
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        verbose_name = "API request"
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="one_request_per_key")]

    def __str__(self) -> str:
        return self.key

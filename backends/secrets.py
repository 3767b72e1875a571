"""Driver secrets, encrypted at rest."""

from __future__ import annotations

import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from backends.drivers.errors import NotReady

MASK = "********"


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.VOLMIG_ENCRYPTION_KEYS])


def seal(values: dict[str, Any]) -> str:
    """Return *values* encrypted with the newest key; the empty object as empty text."""
    return _fernet().encrypt(json.dumps(values).encode()).decode() if values else ""


def unseal(token: str) -> dict[str, Any]:
    """
    Return what `seal` was given, read with any of the keys.

    Raises:
        NotReady: None of the keys fits.
    """
    if not token:
        return {}
    try:
        return json.loads(_fernet().decrypt(token.encode()))
    except InvalidToken:
        raise NotReady(
            "The stored driver secrets cannot be read with the present encryption keys.",
            remedy="Put the old key back into VOLMIG_ENCRYPTION_KEYS (or the file 'encryption_key' in the state "
            "directory), or enter the secrets again.",
        ) from None

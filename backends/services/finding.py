"""What a person types, and what it means."""

from __future__ import annotations

import difflib
import uuid

from backends.drivers.types import PoolAddress
from backends.models import Backend, Pool, Snapshot, Volume, VolumeType
from backends.services.errors import UnknownName


def find_volume(text: str) -> Volume:
    """
    Return the volume whose id or name is *text*.

    Raises:
        UnknownName: There is none, or the name fits several; the text lists their ids.
    """
    query = Volume.objects.select_related("pool__backend", "volume_type")
    try:
        return query.get(pk=uuid.UUID(text))
    except (ValueError, Volume.DoesNotExist):
        pass
    found = list(query.filter(name=text)[:6])
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(str(v.pk) for v in found)
        raise UnknownName(f"Several volumes are called '{text}'. Use the id of one of them: {ids}.")
    # Only names that begin alike: there may be a million.
    names = query.filter(name__istartswith=text[:2]).order_by("name").values_list("name", flat=True)[:1000]
    meant = _did_you_mean(text, list(names))
    raise UnknownName(f"There is no volume '{text}'. {meant}`manage.py list_volumes` shows what there is.")


def _did_you_mean(text: str, names: list[str]) -> str:
    """Return a question that names the nearest of *names*, empty when none is near."""
    by_lower_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(text.strip().lower(), list(by_lower_case), n=1)
    return f"Did you mean '{by_lower_case[near[0]]}'? " if near else ""


def find_backend(address: str) -> Backend:
    """Return the backend `HOST@BACKEND`.  Raises `UnknownName` listing what there is."""
    try:
        parsed = PoolAddress.parse(address)
        return Backend.objects.get(host=parsed.host, name=parsed.backend)
    except (ValueError, Backend.DoesNotExist):
        known = [b.address for b in Backend.objects.all()[:200]]
        listed = ", ".join(known[:20]) or "none yet"
        meant = _did_you_mean(address, known)
        raise UnknownName(f"There is no backend '{address}'. {meant}There are: {listed}.") from None


def find_pool(address: str) -> Pool:
    """Return the pool `HOST@BACKEND#POOL`; without `#POOL` the only one of the backend.  Raises `UnknownName`."""
    try:
        parsed = PoolAddress.parse(address)
    except ValueError as error:
        raise UnknownName(str(error)) from None
    pools = Pool.objects.select_related("backend").filter(
        backend__host=parsed.host, backend__name=parsed.backend
    )
    found = list(pools.filter(name=parsed.pool) if parsed.pool else pools)
    if len(found) == 1:
        return found[0]
    known = [str(p) for p in Pool.objects.select_related("backend")[:200]]
    listed = ", ".join(known[:20]) or "none yet"
    raise UnknownName(f"'{address}' is not one pool. {_did_you_mean(address, known)}There are: {listed}.")


def find_volume_type(name: str) -> VolumeType:
    """Return the volume type *name*.  Raises `UnknownName` listing what there is."""
    found = VolumeType.objects.filter(name=name).first()
    if found is not None:
        return found
    known = list(VolumeType.objects.values_list("name", flat=True)[:200])
    listed = ", ".join(known[:20]) or "none yet"
    raise UnknownName(f"There is no volume type '{name}'. {_did_you_mean(name, known)}There are: {listed}.")


def find_snapshot(volume: Volume, text: str) -> Snapshot:
    """Return the snapshot of *volume* whose id or name is *text*.  Raises `UnknownName` listing what there is."""
    snapshots = list(volume.snapshots.all())
    found = [s for s in snapshots if text in (str(s.pk), s.name)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(str(s.pk) for s in found)
        raise UnknownName(
            f"Several snapshots of '{volume.name}' are called '{text}'. Use the id of one: {ids}."
        )
    listed = ", ".join(f"'{s.name}'" for s in snapshots[:20]) or "none"
    raise UnknownName(f"The volume '{volume.name}' has no snapshot '{text}'. It has: {listed}.")

"""The form "Migrate to backend": options for all, one destination for each volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.conf import settings

from backends.drivers.types import GIB, KIB, MIB
from backends.models import Volume
from migrations_app.models import VolumeMigration
from migrations_app.scheduler.human import bytes_text
from migrations_app.services import Destinations, Options

#: More than this nobody reads through; each volume's storage is looked at for the page.
MOST_VOLUMES = 50

_KEEP, _DELETE = "keep", "delete"


class OptionsForm(forms.Form):
    """How it is done.  *may_skip*: this user may leave out the verification."""

    verify = forms.ChoiceField(
        widget=forms.RadioSelect,
        initial=VolumeMigration.Verify.FULL,
        choices=[
            (VolumeMigration.Verify.FULL, "Read the whole copy back and compare it"),
            (VolumeMigration.Verify.NONE, "Do not verify: a bad copy would go unnoticed"),
        ],
    )
    source = forms.ChoiceField(widget=forms.RadioSelect, initial=_KEEP)
    limit = forms.DecimalField(
        required=False,
        min_value=0,
        max_value=2**30,
        label="Bandwidth limit",
        widget=forms.NumberInput(attrs={"placeholder": "no limit", "step": "any"}),
    )
    limit_unit = forms.TypedChoiceField(
        coerce=int,
        choices=[(KIB, "KiB/s"), (MIB, "MiB/s"), (GIB, "GiB/s")],
        initial=MIB,
        required=False,
        empty_value=MIB,
        label="Unit of the limit",
    )
    force_host_copy = forms.BooleanField(
        required=False, label="Copy byte by byte even where the storage could move it"
    )

    def __init__(self, *args: Any, may_skip: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        hours = settings.VOLMIG_RETENTION_HOURS
        self.fields["source"].choices = [
            (_KEEP, f"Keep it for {hours} h, then delete it"),
            (_DELETE, "Delete it as soon as the volume has moved"),
        ]
        if not may_skip:
            # Left out instead of disabled: a forged value is then an invalid choice.
            self.fields["verify"].choices = self.fields["verify"].choices[:1]

    def options(self) -> Options:
        """Return the options of a valid form."""
        data = self.cleaned_data
        limit = int(data["limit"] * data["limit_unit"]) if data["limit"] else None
        return Options(
            force_host_copy=data["force_host_copy"],
            delete_source=data["source"] == _DELETE,
            verify=data["verify"],
            bandwidth_bytes_per_second=limit or None,
        )

    def sentence(self) -> str:
        """Return the options in words, for the summary."""
        options = self.options()
        parts = [
            "The old copy is deleted at once."
            if options.delete_source
            else f"The old copy is kept for {settings.VOLMIG_RETENTION_HOURS} h.",
            "Nothing is verified."
            if options.verify == VolumeMigration.Verify.NONE
            else "Copied data is read back and compared before the record is switched.",
        ]
        if options.bandwidth_bytes_per_second:
            parts.append(f"At most {bytes_text(options.bandwidth_bytes_per_second)} per second and volume.")
        return " ".join(parts)


@dataclass(slots=True)
class Section:
    """One volume on the page."""

    volume: Volume
    destinations: Destinations
    chosen: str = ""
    refusal: Any = None
    plan: Any = None

    @property
    def field(self) -> str:
        """Name of the volume's radio buttons."""
        return f"destination-{self.volume.pk}"

    @property
    def fitting(self) -> list[str]:
        return [str(v.address) for v in self.destinations.verdicts if v.fits]

    @property
    def can_move(self) -> bool:
        return self.destinations.can_move

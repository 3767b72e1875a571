"""Forms of a volume's verbs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings

from backends import services
from backends.drivers.errors import DriverError, VolmigError
from backends.drivers.types import GIB, MIB, TIB
from backends.models import Pool, Volume, VolumeType

#: What the record of a size can hold.
MAX_SIZE_BYTES = 2**63 - 1
UNITS = [(MIB, "MiB"), (GIB, "GiB"), (TIB, "TiB")]


def refusal_text(error: VolmigError) -> str:
    """Return what a service says of a request that it refused, for people."""
    return f"{error.message} {error.remedy}".strip() if isinstance(error, DriverError) else str(error)


class VolumeAddForm(forms.Form):
    """A new, empty volume."""

    name = forms.CharField(max_length=255, widget=forms.TextInput(attrs={"size": 50, "autofocus": True}))
    size = forms.DecimalField(
        min_value=Decimal("0.001"),
        max_value=Decimal(2**40),
        initial=10,
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    unit = forms.TypedChoiceField(coerce=int, choices=UNITS, initial=GIB)
    pool = forms.ModelChoiceField(
        Pool.objects.none(),
        help_text="Only pools of this host: a volume is made by the host that reaches it.",
    )
    volume_type = forms.ModelChoiceField(
        VolumeType.objects.all(),
        required=False,
        empty_label="none",
        label="Type",
        help_text="What the volume asks of its pool, now and when it is moved.",
    )
    description = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 2, "cols": 60}))

    fieldsets = [(None, {"fields": ["name", ("size", "unit"), "pool", "volume_type", "description"]})]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pools = Pool.objects.select_related("backend").filter(backend__host=settings.VOLMIG_HOST)
        self.fields["pool"].queryset = pools

    def save(self) -> Volume | None:
        """Return the volume just made; `None` when it was refused and the form says why."""
        data = self.cleaned_data
        try:
            return services.create_volume(
                data["name"],
                int(data["size"] * data["unit"]),
                data["pool"],
                volume_type=data["volume_type"],
                description=data["description"],
            )
        except VolmigError as error:
            self.add_error(None, forms.ValidationError(refusal_text(error)))
            return None


class ExtendForm(forms.Form):
    """The new size of *volume*."""

    size = forms.DecimalField(
        min_value=Decimal("0.001"),
        max_value=Decimal(2**40),
        label="New size",
        help_text="The whole size, not what is added.",
        widget=forms.NumberInput(attrs={"step": "any", "autofocus": True}),
    )
    unit = forms.TypedChoiceField(coerce=int, choices=UNITS, initial=GIB)

    fieldsets = [(None, {"fields": [("size", "unit")]})]

    def __init__(self, *args: Any, volume: Volume, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        unit = next((unit for unit, _ in reversed(UNITS) if volume.size_bytes >= unit), MIB)
        self.fields["unit"].initial = unit
        # Written out: a normalised 20 would be shown as 2E+1.
        self.fields["size"].initial = format((Decimal(volume.size_bytes) / unit).normalize(), "f")

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if not self.errors and self.size_bytes() > MAX_SIZE_BYTES:
            raise forms.ValidationError("No volume can be that large.")
        return data

    def size_bytes(self) -> int:
        """Return the size of a valid form."""
        return int(self.cleaned_data["size"] * self.cleaned_data["unit"])


class SnapshotForm(forms.Form):
    """The name of a new snapshot."""

    name = forms.CharField(max_length=255, widget=forms.TextInput(attrs={"size": 40, "autofocus": True}))

    fieldsets = [(None, {"fields": ["name"]})]


class DeleteForm(forms.Form):
    """The volume's *name*, typed: nobody should delete data by a slip."""

    typed_name = forms.CharField(
        label="Type the volume's name",
        widget=forms.TextInput(attrs={"size": 50, "autocomplete": "off", "autofocus": True}),
    )

    def __init__(self, *args: Any, name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name

    def clean_typed_name(self) -> str:
        if self.cleaned_data["typed_name"] != self.name.strip():
            raise forms.ValidationError(f"That is not its name. Type '{self.name}' to delete it.")
        return self.name


class AttachForm(forms.Form):
    """Where a volume is attached."""

    attached_to = forms.CharField(
        max_length=255,
        label="Attached to",
        help_text="The server or machine that uses the volume.",
        widget=forms.TextInput(attrs={"size": 40, "autofocus": True}),
    )
    mountpoint = forms.CharField(
        max_length=255,
        required=False,
        help_text="Such as /dev/vdb or /srv/data; may be empty.",
        widget=forms.TextInput(attrs={"size": 40}),
    )

    fieldsets = [(None, {"fields": ["attached_to", "mountpoint"]})]

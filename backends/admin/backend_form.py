"""The form of a backend: its own fields, and one field for each option that its driver declares."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings

from backends import secrets, services
from backends.drivers.errors import DriverError, VolmigError
from backends.drivers.options import OptionInfo, describe_options
from backends.drivers.registry import driver_class
from backends.models import Backend

OPTION_PREFIX = "option_"

#: What a person may change; everything else is written by services while the form is open.
OWN_FIELDS = [
    "availability_zone",
    "is_enabled",
    "disabled_reason",
    "reserved_percentage",
    "max_over_subscription_ratio",
    "max_bandwidth_bytes_per_second",
    "filter_function",
    "goodness_function",
    "extra_capabilities",
]


class BackendForm(forms.ModelForm):
    """Use `form_for_driver`; this is its base."""

    driver_name = ""

    class Meta:
        model = Backend
        fields = OWN_FIELDS
        widgets = {
            "filter_function": forms.Textarea(attrs={"rows": 2, "cols": 70, "class": "mono"}),
            "goodness_function": forms.Textarea(attrs={"rows": 2, "cols": 70, "class": "mono"}),
            "extra_capabilities": forms.Textarea(attrs={"rows": 4, "cols": 70, "class": "mono"}),
        }

    def clean_extra_capabilities(self) -> dict[str, Any]:
        capabilities = self.cleaned_data["extra_capabilities"] or {}
        if not isinstance(capabilities, dict):
            raise forms.ValidationError('Capabilities are an object, such as {"tier": "gold"}.')
        return capabilities

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if self.errors:
            return data
        values = {
            name.removeprefix(OPTION_PREFIX): value
            for name, value in data.items()
            if name.startswith(OPTION_PREFIX) and value not in (None, "")
        }
        try:
            if self.instance.pk:
                services.set_options(self.instance, values)
            else:
                self._register(data, values)
        except VolmigError as error:
            self.add_error(None, forms.ValidationError(_message(error)))
        return data

    def _register(self, data: dict[str, Any], values: dict[str, Any]) -> None:
        """
        Register the backend while the form is validated.

        Only the storage can say whether the options are right, and what it says belongs beside the fields;
        after validation it would be an error page.
        """
        own = {name: data[name] for name in OWN_FIELDS}
        address = f"{data['host']}@{data['name']}"
        self.instance = services.register_backend(address, self.driver_name, values, **own)


def form_for_driver(driver: str, backend: Backend | None) -> type[BackendForm]:
    """Return the form class with the options of *driver*, filled from *backend* when there is one."""
    fields: dict[str, Any] = {"driver_name": driver}
    if backend is None:
        fields["host"] = Backend._meta.get_field("host").formfield(initial=settings.VOLMIG_HOST)
        fields["name"] = Backend._meta.get_field("name").formfield(
            help_text="How it is called from now on, such as ssd: its address is host@name."
        )
    for info in describe_options(driver_class(driver).options_class):
        fields[OPTION_PREFIX + info.name] = _option_field(info, backend)
    return type("DriverBackendForm", (BackendForm,), fields)


def _option_field(info: OptionInfo, backend: Backend | None) -> forms.Field:
    stored = backend.options.get(info.name) if backend else None
    initial = info.default if stored is None else stored
    common = {"label": info.name.replace("_", " "), "help_text": _help(info)}
    if info.is_secret:
        is_set = bool(backend and backend.secret_options)
        return forms.CharField(
            **common | {"help_text": f"{common['help_text']} {_secret_help(is_set)}"},
            # Checked by the service, which knows whether a value is stored.
            required=False,
            widget=forms.PasswordInput(
                attrs={"autocomplete": "new-password", "placeholder": secrets.MASK if is_set else ""}
            ),
        )
    if info.type_name == "bool":
        return forms.BooleanField(**common, required=False, initial=initial)
    if info.type_name == "int":
        return forms.IntegerField(**common, required=info.is_required, initial=initial)
    return forms.CharField(
        **common, required=info.is_required, initial=initial, widget=forms.TextInput(attrs={"size": 60})
    )


def _help(info: OptionInfo) -> str:
    return f"{info.help_text} Example: {info.example}" if info.example else info.help_text


def _secret_help(is_set: bool) -> str:
    return "It is set; leave this empty to keep it." if is_set else "Stored encrypted, never shown again."


def _message(error: VolmigError) -> str:
    if isinstance(error, DriverError):
        return f"{error.message} {error.remedy}".strip()
    return str(error)

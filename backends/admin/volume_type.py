"""Volume types: what a class of volumes asks of its pool."""

from __future__ import annotations

import json

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from backends.admin.pieces import PlainTitle, piece
from backends.models import VolumeType
from migrations_app.scheduler.extra_specs import mistaken_operator


class VolumeTypeForm(forms.ModelForm):
    """Extra specs are texts by name, as in Cinder."""

    class Meta:
        model = VolumeType
        fields = ["name", "description", "extra_specs"]
        widgets = {"extra_specs": forms.Textarea(attrs={"rows": 8, "cols": 70, "class": "mono"})}

    def clean_extra_specs(self) -> dict[str, str]:
        specs = self.cleaned_data["extra_specs"] or {}
        if not isinstance(specs, dict):
            raise forms.ValidationError('Extra specs are an object, such as {"tier": "gold"}.')
        wrong = [
            f"'{name}' is {json.dumps(v)}; write it as text, \"{v}\""
            for name, v in specs.items()
            if not isinstance(v, str)
        ]
        for name, value in specs.items():
            mistake = mistaken_operator(value) if isinstance(value, str) else None
            if mistake:
                wrong.append(f"'{name}': '{mistake[0]}' is not an operator; write '{mistake[1]}'")
        if wrong:
            raise forms.ValidationError(f"{'; '.join(wrong)}.")
        return specs


@admin.register(VolumeType)
class VolumeTypeAdmin(PlainTitle, admin.ModelAdmin):
    """Types may change at any time: what has been moved stays where it is."""

    form = VolumeTypeForm
    list_display = ["name", "description", "specs"]
    search_fields = ["name"]
    show_full_result_count = False

    @admin.display(description="extra specs")
    def specs(self, row: VolumeType) -> SafeString:
        return piece("volmig/specs.html", specs=row.extra_specs)

    def get_queryset(self, request: HttpRequest) -> QuerySet[VolumeType]:
        return super().get_queryset(request).order_by("name", "pk")

"""Numbers of dashboards, as people read them; nothing known is a dash."""

from __future__ import annotations

from django import template

register = template.Library()
_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


@register.filter
def percent(value: float | None) -> str:
    """Show 87.3 as 87 %."""
    return "—" if value is None else f"{value:.0f}\u00a0%"


@register.filter
def span(seconds: float | None) -> str:
    """Show a duration in seconds in its largest unit: 90 as 1.5 min."""
    if seconds is None:
        return "—"
    unit, size = next((item for item in _UNITS if seconds >= item[1]), _UNITS[-1])
    return f"{seconds / size:.2g}\u00a0{unit}" if seconds / size < 10 else f"{seconds / size:.0f}\u00a0{unit}"


@register.filter
def span_hours(hours: float | None) -> str:
    return span(None if hours is None else hours * 3600)

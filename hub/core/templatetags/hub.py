"""Template tags shared by all pages: states, icons, digests, times, query strings."""

from __future__ import annotations

from typing import Any

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import mark_safe

from hub.core.states import label_of, style_of

register = template.Library()


@register.simple_tag
def icon(name: str, label: str = "") -> str:
    """Draw a shape of icons.svg; without a label it is decoration and hidden from screen readers."""
    return format_html(
        '<svg class="icon" {}><use href="{}#{}"></use></svg>',
        format_html('role="img" aria-label="{}"', label) if label else mark_safe('aria-hidden="true"'),
        static("img/icons.svg"),
        name,
    )


@register.simple_tag
def state(value: Any, text: str = "") -> str:
    """Show a state as a chip: shape, colour and word."""
    name = str(value or "none")
    style = style_of(name)
    return format_html(
        '<span class="state state-{}">{}<span>{}</span></span>',
        style.tone,
        icon(style.icon),
        text or label_of(name),
    )


@register.filter
def short(digest: Any) -> str:
    """Show the first twelve digits of a digest; pages put the whole into a title attribute."""
    return str(digest or "")[:12] or "—"


@register.filter
def share(value: Any) -> str:
    """Show 0.873 as 87 %; nothing known as a dash."""
    return "—" if value is None else f"{float(value):.0%}".replace("%", " %")


@register.filter
def number(value: Any) -> str:
    """Show a measurement with four significant digits."""
    if value is None or value == "":
        return "—"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@register.filter
def item(mapping: Any, key: Any) -> Any:
    return mapping.get(key) if hasattr(mapping, "get") else None


@register.simple_tag(takes_context=True)
def came_from(context: dict[str, Any]) -> str:
    """Return the page of this hub that the request came from; empty where it is unknown or this very page."""
    request = context.get("request")
    if request is None:
        return ""
    address = str(request.META.get("HTTP_REFERER", ""))
    is_own = url_has_allowed_host_and_scheme(address, {request.get_host()}, require_https=request.is_secure())
    is_same = request.method == "GET" and address == request.build_absolute_uri()
    return address if is_own and not is_same else ""


@register.simple_tag(takes_context=True)
def query(context: dict[str, Any], **changes: Any) -> str:
    """Return the page's query string with some parameters changed; None removes one."""
    parameters = context["request"].GET.copy()
    for key, value in changes.items():
        if value is None:
            parameters.pop(key, None)
        else:
            parameters[key] = value
    return "?" + parameters.urlencode()

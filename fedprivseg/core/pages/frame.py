"""One frame for every page: an HTML file that needs no other, runs no script, and fits any width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, filters: Mapping[str, Callable[..., str]] = MappingProxyType({}), **values: Any) -> str:
    """The page that the template makes of `values`.

    Args:
        template: its path inside the package, such as ``"study/report/report_page.html"``. It extends
            ``core/pages/frame.html``, and puts every table and chart into a ``<div class="scroll">``, so that what is too wide
            scrolls by itself.
        filters: name -> how the template writes a value that it pipes through that name.
        **values: what it shows. Text is escaped; only `markupsafe.Markup` goes in as it is.

    Raises:
        jinja2.UndefinedError: the template asks for a value that was not given.
    """
    environment = Environment(
        loader=PackageLoader("fedprivseg", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(**values)

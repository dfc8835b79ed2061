"""What a scenario or an attack can choose from, also from other packages, and how to begin a package of your own."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedprivseg.cli.options import AsJson
from fedprivseg.cli.terminal import print_table
from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.files import deliver

if TYPE_CHECKING:
    from fedprivseg.core.plugins import Registry

_TEMPLATES = Path(__file__).with_name("new_package")


def methods(as_json: AsJson = False) -> None:
    """List the methods with their variants, what leaves a site, and the package that each comes from."""
    from fedprivseg.methods import METHODS

    _print(
        METHODS,
        {
            each.name: {"title": each.title, "variants": [*each.variants], "exports": sorted(each.exports)}
            for each in METHODS
        },
        as_json,
    )


def attacks(as_json: AsJson = False) -> None:
    """List the attacks, what their adversaries know, and the package that each comes from."""
    from fedprivseg.attacks import ATTACKS

    _print(ATTACKS, {each.name: {"title": each.title, "knows": each().identity["knows"]} for each in ATTACKS}, as_json)


def protections(as_json: AsJson = False) -> None:
    """List the protections, their parameters, and the package that each comes from."""
    from fedprivseg.protections import PROTECTIONS

    _print(PROTECTIONS, {each.name: {"parameters": [*each.model_fields]} for each in PROTECTIONS}, as_json)


def new(
    sort: Annotated[str, typer.Argument(help="method, attack or protection.")],
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and hyphens.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The folder; default ./fedprivseg-NAME.")] = None,
) -> None:
    """Begin a package of your own: one working file, its entry point and its contract test."""
    registries = {registry.sort: registry for registry in _registries()}
    if sort not in registries:
        raise RequestError(f"no new {sort!r} can be begun; allowed are: {', '.join(registries)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 40:
        raise RequestError(
            f"{name!r} is no name for a {sort}: it begins with a small letter, has small letters, digits and single hyphens, "
            "and at most 40 of them, such as my-method"
        )
    if name in registries[sort].names:
        origin = registries[sort].origin(name)
        raise RequestError(f"the {sort} {name!r} exists already, in {origin}; choose another name")
    folder = out or Path(f"fedprivseg-{name}")
    if folder.exists():
        raise FolderError(f"{folder} exists already; choose another folder with --out, nothing was written")
    words = {
        "sort": sort,
        "name": name,
        "module": f"fedprivseg_{name.replace('-', '_')}",
        "kind": "".join(part.capitalize() for part in name.split("-")) + sort.capitalize(),
        "title": name.replace("-", " ").capitalize(),
        "contract": {"attack": "Reconstruction"}.get(sort, sort.capitalize()) + "Contract",
    }
    for template, path in (
        ("pyproject", "pyproject.toml"),
        (sort, f"{words['module']}.py"),
        ("test", f"test_{words['module']}.py"),
    ):
        text = Template((_TEMPLATES / f"{template}.txt").read_text(encoding="utf-8"))
        typer.echo(deliver(folder / path, text.substitute(words)))
    place = shlex.quote(str(folder))
    typer.echo(f"next: pip install -e {place} && fedprivseg {sort}s && python -m pytest {place}")


def _registries() -> tuple[Registry[Any], ...]:
    from fedprivseg.attacks import ATTACKS
    from fedprivseg.methods import METHODS
    from fedprivseg.protections import PROTECTIONS

    return METHODS, ATTACKS, PROTECTIONS


def _print(registry: Registry[Any], facts: dict[str, dict[str, Any]], as_json: bool) -> None:
    """A line a part: its name, its own facts, its paper and where it comes from."""
    papers = {part.name: part.paper for part in registry}
    rows = [
        {"name": name, **own, "paper": papers[name], "from": str(registry.origin(name))} for name, own in facts.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    columns = [column for column in rows[0] if column != "title"]
    cells = [[", ".join(row[key]) if isinstance(row[key], list) else str(row[key]) for key in columns] for row in rows]
    print_table(f"{registry.sort}s", columns, cells)

"""``fedprivseg deploy``: a study between hospitals, on Flower's own engine. Each command says at which party it is given."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from fedprivseg.cli.options import AsJson, Set
from fedprivseg.cli.terminal import open_console, print_missing, print_result, print_table
from fedprivseg.core.errors import RequestError

app = typer.Typer(help="Carry out a study between hospitals: kit, keys, approval, server, sites.", no_args_is_help=True)

Kit = Annotated[Path, typer.Argument(metavar="KIT", help="The operator's folder, such as DIR/server.")]
HospitalFolder = Annotated[Path, typer.Argument(metavar="KIT", help="The hospital's folder, as it came.")]


@app.callback()
def _private() -> None:
    """Nothing that these commands write is for others on the machine."""
    os.umask(0o077)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    scenario: Annotated[Path, typer.Option(help="The study: a scenario file.")],
    host: Annotated[list[str], typer.Option(help="A name or address of the server; hospitals are told the first.")],
    port: Annotated[int, typer.Option(help="Where hospitals reach it.")] = 8443,
    link_port: Annotated[int, typer.Option(help="Where the SuperLink listens, on loopback alone.")] = 8000,
    settings: Set = None,
) -> None:
    """Operator: make the kit of a study, a folder for the server and one for each hospital."""
    from fedprivseg.runtime.deployment.operator_side import init as make
    from fedprivseg.study.deployed import deployable
    from fedprivseg.study.scenarios import load_scenario

    server, hospitals = make(folder, deployable(load_scenario(scenario, settings or [])), host, port, link_port)
    typer.echo(f"operator: {server.path} (begin with its README.md)")
    for site, kit in hospitals.items():
        typer.echo(f"{site}: {kit.path}, to be sent to the hospital")


@app.command()
def keygen(kit: HospitalFolder) -> None:
    """Hospital: make its key, on its own machine, and the certificate request for the operator."""
    from fedprivseg.runtime.deployment.certificates import fingerprint, read_request
    from fedprivseg.runtime.deployment.hospital_side import keygen as make
    from fedprivseg.runtime.deployment.kit import HospitalKit

    request = make(HospitalKit(kit))
    typer.echo(f"request: {request}, to be sent to the operator")
    typer.echo(f"fingerprint: {fingerprint(read_request(request)[1])}, to be told over another way")


@app.command()
def certify(
    kit: Kit, request: Annotated[Path, typer.Argument(metavar="REQUEST", help="What a hospital sent.")]
) -> None:
    """Operator: sign a hospital's request, once its fingerprint was compared."""
    from fedprivseg.runtime.deployment.certificates import fingerprint, read_request
    from fedprivseg.runtime.deployment.kit import ServerKit
    from fedprivseg.runtime.deployment.operator_side import certify as sign

    path = sign(ServerKit(kit), request)
    typer.echo(f"certificate: {path}, to be sent back; start the server again")
    typer.echo(f"fingerprint: {fingerprint(read_request(request)[1])}")


@app.command()
def approve(
    kit: HospitalFolder,
    sha256: Annotated[
        str, typer.Argument(metavar="[HASH]", help="Of the app; without it, what is asked is shown.")
    ] = "",
    who: Annotated[str, typer.Option("--as", metavar="NAME", help="Who approves.")] = "",
) -> None:
    """Hospital: show the app of the study, or approve it by its hash. The site runs no other."""
    from fedprivseg.core.documents import content_of
    from fedprivseg.runtime.deployment import app_bundle, approval
    from fedprivseg.runtime.deployment.kit import HospitalKit

    folder = HospitalKit(kit)
    if not sha256:
        asked = app_bundle.read(content_of(folder.app))
        typer.echo(json.dumps(json.loads(asked.scenario_text), indent=1))
        typer.echo(f"code: fedprivseg {asked.version}, {asked.code}")
        typer.echo(f"hash: {asked.sha256}")
        if fault := asked.fault():
            raise RequestError(fault)
        return
    if not who:
        raise RequestError("--as is missing: who approves stands beside the hash")
    done = approval.approve(folder.approved, folder.app, sha256, who)
    typer.echo(f"approved: {done.scenario.name} with fedprivseg {done.version}")


@app.command()
def server(
    kit: Kit,
    listen: Annotated[str, typer.Option(help="The address on which hospitals reach it.")] = "0.0.0.0",
) -> None:
    """Operator: run the SuperLink and the TLS terminator before it, until stopped."""
    from fedprivseg.runtime.deployment.kit import ServerKit
    from fedprivseg.runtime.deployment.service import attend, service

    folder = ServerKit(kit)
    decided = folder.deployment
    with service(folder, listen) as children:
        typer.echo(f"hospitals: {listen}:{decided.port}; certified: {', '.join(folder.certified) or 'none'}")
        attend(children)


@app.command()
def site(
    kit: HospitalFolder,
    data: Annotated[
        Path | None, typer.Option(help="The folder of the hospital's images; needed the first time.")
    ] = None,
) -> None:
    """Hospital: run its site until stopped."""
    from fedprivseg.runtime.deployment import node
    from fedprivseg.runtime.deployment.hospital_side import prepare
    from fedprivseg.runtime.deployment.kit import HospitalKit

    folder = HospitalKit(kit)
    node.run(folder, prepare(folder, data))


@app.command()
def submit(kit: Kit, as_json: AsJson = False) -> None:
    """Operator: carry out the study; an interrupted one goes on, a finished one is shown."""
    from fedprivseg.cli.display import Display
    from fedprivseg.runtime.deployment.kit import ServerKit
    from fedprivseg.study import deployed

    folder = ServerKit(kit)
    console = open_console(stderr=as_json)
    result = deployed.submit(folder, display=Display(folder.run, [], console))
    report = folder.run / "report.html"
    if as_json:
        print_missing(result, console)
        typer.echo(json.dumps({**result.model_dump(mode="json", exclude={"metrics"}), "report": str(report)}))
        return
    print_result(result, console)
    console.print(f"report: {report}", highlight=False)


@app.command()
def status(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="The operator's or a hospital's folder.")],
    as_json: AsJson = False,
) -> None:
    """Either: how it stands. Exit status 1 if something is missing."""
    from fedprivseg.runtime.deployment.standing import standing

    found = standing(kit)
    if as_json:
        typer.echo(json.dumps([vars(each) for each in found]))
    else:
        print_table("", ["what", "how it stands"], [[each.what, each.state] for each in found])
    if not all(each.well for each in found):
        raise typer.Exit(1)


@app.command()
def stop(kit: Kit) -> None:
    """Operator: stop the study that is under way; submitted again, it goes on."""
    from fedprivseg.runtime.deployment.kit import ServerKit
    from fedprivseg.runtime.deployment.superlink import Link

    with Link(ServerKit(kit)) as link:
        count = link.stop_runs()
    typer.echo(f"stopped: {count}")

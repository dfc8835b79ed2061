"""The server's half of a study between hospitals: prepare the run's folder, carry out the server's program, gather the result.

It knows no hospital's images, key or seed: what it has to do with a site are orders and the payloads that its gate let out. The
sites' half is `runtime.deployment.hospital_side` and the site's program.
"""

from __future__ import annotations

import secrets
import time
from contextlib import AbstractContextManager, nullcontext

from fedprivseg.core.compute import require_gpus
from fedprivseg.core.config import Scenario
from fedprivseg.core.documents import content_of
from fedprivseg.core.errors import QuorumError, RequestError
from fedprivseg.core.files import write_secret, write_text
from fedprivseg.core.lock import alone
from fedprivseg.core.results import Result, read_result, read_run_id, write_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.methods import resolve
from fedprivseg.runtime.deployment import app_bundle
from fedprivseg.runtime.deployment.kit import ServerKit

_SEED_BITS = 256


def deployable(scenario: Scenario) -> Scenario:
    """`scenario` as it is carried out between hospitals: on Flower's own engine, and without images in the report."""
    report = scenario.report.model_copy(update={"images": False})
    return scenario.model_copy(update={"engine": "deployment", "report": report})


def submit(kit: ServerKit, *, display: AbstractContextManager[object] | None = None) -> Result:
    """Carry out the study of `kit`; an interrupted one goes on, a finished one is read.

    Args:
        kit: the operator's folder; the server and enough sites are up.
        display: entered while the run is under way.

    Raises:
        RequestError: the kit was made with other code than is installed.
        RunError: the run failed.
        QuorumError: too few sites stayed.
    """
    from fedprivseg.study import pipeline

    run = RunFolder(kit.run)
    run.path.mkdir(exist_ok=True)
    with alone(run.path):
        if run.result.exists():
            return read_result(run.path)
        resumed = run.run_id.exists()
        scenario = _prepare(kit)
        start = time.perf_counter()
        with display or nullcontext():
            from fedprivseg.runtime.deployment import submission
            from fedprivseg.runtime.server.server_app import app as server_app
            from fedprivseg.study.gathering import gather
            from fedprivseg.study.prepare_start import prepare_start

            prepare_start(scenario, run.server)
            try:
                submission.submit(kit, run.path, server_app)
            except QuorumError:
                pipeline.assess(run.path)
                raise
        result = gather(run.path, scenario, time.perf_counter() - start, resumed, (), {})
        result.write(run.path, [run.run_id])
    pipeline.report(run.path)
    return result


def _prepare(kit: ServerKit) -> Scenario:
    """Write what the server's program reads, as far as it is not there. The server signs with the key that hospitals were
    told of, and draws from a seed of its own."""
    app, run = app_bundle.read(content_of(kit.app)), RunFolder(kit.run)
    if fault := app.fault():
        raise RequestError(fault)
    scenario = app.scenario
    require_gpus(scenario.resources.gpus)
    run.server.path.mkdir(exist_ok=True)
    if not run.scenario.exists():
        write_scenario(run.path, scenario)
    if not run.method_card.exists():
        resolve(scenario.method).card.write(run.path)
    if not run.server.key.exists():
        write_secret(run.server.key, kit.signing_key.read_bytes())
    if not run.server.seed.exists():
        write_secret(run.server.seed, str(secrets.randbits(_SEED_BITS)).encode())
    if not run.run_id.exists():
        write_text(run.run_id, secrets.token_hex(8))
    read_run_id(run.path)
    return scenario

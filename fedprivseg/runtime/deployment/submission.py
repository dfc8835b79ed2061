"""A study submitted: the app goes to the SuperLink, and this process carries out the server's half of it.

Whatever ends the run at the SuperLink (a restart that took too long, a stop) does not end the study: it is submitted again, and
goes on from what the server's folder holds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

from fedprivseg.core.documents import content_of
from fedprivseg.core.errors import RunError
from fedprivseg.runtime.deployment import app_bundle
from fedprivseg.runtime.deployment.certificates import certified_key
from fedprivseg.runtime.deployment.grid import DeploymentGrid
from fedprivseg.runtime.deployment.kit import ServerKit
from fedprivseg.runtime.deployment.processes import until
from fedprivseg.runtime.deployment.server_task import RunLost, server_task
from fedprivseg.runtime.deployment.superlink import Link

MOST_TIMES = 20
"""How often a study is submitted again before it is given up."""

BACK_S = 600.0
"""For so long the SuperLink may be away before a study ends."""

_log = logging.getLogger(__name__)


def submit(kit: ServerKit, folder: Path, server_app: ServerApp) -> None:
    """Carry out the server's half of the study of `kit`, which is `server_app`, in the run folder `folder`, which is prepared.

    Raises:
        RunError: the SuperLink does not answer, or ended the run again and again.
        FedprivsegError: what the server's program raises.
    """
    content = content_of(kit.app)
    app = app_bundle.read(content)
    registered = {site: certified_key(path) for site, path in kit.certified.items()}
    with Link(kit) as link:
        for left in reversed(range(MOST_TIMES)):
            link.stop_runs()
            link.register()
            run_id = link.start_run(app, content)
            try:
                _attempt(link, run_id, folder, registered, server_app)
                return
            except RunLost as fault:
                until(lambda: link.answers, [], BACK_S, "the SuperLink's coming back")
                if link.stopped(run_id):
                    raise RunError("the run was stopped; the same command goes on with it") from None
                if not left:
                    raise
                _log.warning("%s; submitted again, it goes on where it stopped", fault)


def _attempt(link: Link, run_id: int, folder: Path, registered: Mapping[str, bytes], server_app: ServerApp) -> None:
    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # progress is shown elsewhere
    with server_task(link, run_id) as task:
        context = Context(
            run_id=run_id, node_id=1, node_config={}, state=RecordDict(), run_config={"run-folder": str(folder)}
        )
        server_app(DeploymentGrid(task, registered), context)

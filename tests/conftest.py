"""Shared by all tests: no network beyond loopback, a cache of their own, one small phantom consortium."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Test processes share the cores: torch's threads of several of them would wait for each other, and a training of two seconds
# then takes fifty. A run's own threads are those of its scenario. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fedprivseg  # noqa: F401  (first: it tells OpenMP, before torch loads, that waiting threads sleep)

ROOT = Path(__file__).parent.parent

# No test fails because the machine is busy: properties are tried as often as they say, however long one trial takes.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

BRIEF = [
    "method.parameters.image_steps=3",
    "method.parameters.mask_steps=3",
    "method.parameters.mapping_steps=3",
    "method.parameters.views=2",
    "method.parameters.shard_slices=24",
]
"""Settings with which coded segmentation trains for seconds and learns nothing."""


@pytest.fixture(autouse=True, scope="session")
def _loopback_only():
    """Tests forbid the network: connecting anywhere but to this machine is an error."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
                if host not in own:
                    raise AssertionError(f"a test tried to reach {host}")
        return connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Caches of tests never mix with a user's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("FEDPRIVSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _no_haste():
    """A decision on access may take as long as a busy machine makes it take; tests of the limit set their own."""
    patch = pytest.MonkeyPatch()
    patch.setattr("fedprivseg.governance.access.authorizer.LONGEST_S", 600.0)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """A release of three centres with three labelled subjects each."""
    from fedprivseg.imaging.phantom.consortium import write_phantom

    return write_phantom(tmp_path_factory.mktemp("phantom") / "release", 3, 0, centres=(1, 2, 3))


@pytest.fixture(scope="session")
def quickstart() -> Path:
    """The scenario that the README runs."""
    return ROOT / "simulations" / "quickstart.toml"


@pytest.fixture(scope="session")
def nginx():
    """The TLS terminator of deployments, which is no Python package."""
    from fedprivseg.core.errors import RequestError
    from fedprivseg.runtime.deployment.terminator import program

    try:
        return program()
    except RequestError as fault:
        pytest.skip(str(fault))


@pytest.fixture(scope="session")
def real_data():
    """The folder of real cardiac MRI, if this machine has it; see README, 'Test it'."""
    import os

    folder = Path(os.environ.get("FEDPRIVSEG_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data on this machine (set FEDPRIVSEG_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_scenario(phantom):
    """Three phantom sites, a coarse grid and a few steps: everything runs, nothing is learned."""
    from fedprivseg.study.run import load_scenario

    return load_scenario(ROOT / "simulations" / "quickstart.toml", tiny_settings(phantom))


STRICT = [
    'policy.restrict.all={profile="scgs-313008"}',
    "study.today=2026-03-01",
    "study.agreement={start=2026-01-01, end=2026-12-31}",
    "study.consent={}",
]
"""Settings that put every site under the standard's profile: consent on file, an agreement, everything sealed."""


@pytest.fixture(scope="session")
def strict_run(tmp_path_factory, phantom) -> Path:
    """A finished run of three sealed sites. Copy it before changing anything."""
    from fedprivseg.study.run import load_scenario, simulate

    folder = tmp_path_factory.mktemp("strict") / "run"
    settings = [*tiny_settings(phantom), *BRIEF, *STRICT]
    simulate(load_scenario(ROOT / "simulations" / "policy-open.toml", settings), folder)
    return folder


def tiny_settings(release: Path) -> list[str]:
    """Settings that turn the quickstart into `tiny_scenario`."""
    return [
        f'data.source="{release}"',
        "engine=inline",
        "grid.height=32",
        "grid.width=32",
        "grid.spacing=6.0",
        "resources.cpus=1",
        "resources.sites_at_once=1",
    ]

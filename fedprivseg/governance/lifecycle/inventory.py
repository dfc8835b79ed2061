"""What a run's folder holds that was derived from one site's subjects: at the site, at the server, and in what the study shows.

Withdrawal and destruction delete it; both find it here. The patients' images themselves are in the hospital's own archive, and
no part of a run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from fedprivseg.core.config import Scenario
from fedprivseg.core.records import digest
from fedprivseg.core.runfolder import RunFolder, ServerFolder, SiteFolder
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import NOTES
from fedprivseg.governance.sitefolder.vault import ARCHIVES
from fedprivseg.imaging.datasets import dataset_of
from fedprivseg.imaging.splits import own_subjects
from fedprivseg.imaging.volumes import gridded_file

SHOWN = ("report.html", "attacks*.safetensors")
"""What a study shows of sites' images, in the run's folder; an interrupted attack battery leaves drafts. Patterns."""

RESULTS = ("result.json", "metrics.csv", "attacks*.json", "compliance.json")
"""What a study came to, in the run's folder: counts and measures. Patterns."""


def vault_files(site: SiteFolder) -> list[Path]:
    """What a site's vault holds, encrypted or not; keys are no such files."""
    return sorted(path for path in site.vault.glob("*") if path.suffix in (".safetensors", ".sealed"))


def everything(site: SiteFolder) -> list[Path]:
    """All files of a site that hold its subjects' data: its vault with what a killed writer left there, its archives and
    predictions; without the site's key. `lists` are apart."""
    vault = [path for path in site.vault.rglob("*") if path.is_file() and path != site.key]
    return sorted([*vault, *archives(site), *predictions(site)])


def predictions(site: SiteFolder) -> list[Path]:
    """Masks that a site predicted, as files of their own."""
    return sorted(site.predictions.glob("*"))


def archives(site: SiteFolder) -> list[Path]:
    """A site's archives, which hold what its vault held."""
    return sorted((site.path / ARCHIVES).glob("*.archive"))


def lists(site: SiteFolder, names: Iterable[str] = NOTES) -> list[Path]:
    """Those of the notes `names` of a site that are there, encrypted or not. They name subjects and hold no image."""
    return [path for name in names for path in (site.path / name, site.path / f"{name}.sealed") if path.exists()]


def cached(configuration: SiteConfiguration, scenario: Scenario, subject: str | None = None) -> list[Path]:
    """The site's images on the network grid, which it keeps between runs: of `subject`, or of all. Raises DataError if there
    may be some and the release is gone."""
    if not configuration.cache.is_dir():
        return []
    release = dataset_of(configuration.data, configuration.release).read(configuration.release)
    found = {
        gridded_file(one, scenario.grid.grid(), configuration.cache)
        for one in own_subjects(release.subjects, configuration.site)
        if subject in (None, one.code)
    }
    return sorted(path for path in found if path.exists())


def metrics(server: ServerFolder, site: str) -> list[Path]:
    """What the server keeps of a site's measures."""
    return [path for path in (server.metrics(site),) if path.exists()]


def shown(run: RunFolder) -> list[Path]:
    """Those of `SHOWN` that are there."""
    return sorted(path for pattern in SHOWN for path in run.path.glob(pattern))


def forget_notes(server: ServerFolder, site: str) -> None:
    """Delete the notes that the server keeps beside a site's shards: without a shard they would ask for one."""
    for note in sorted((server.codes / site).rglob("*.json")):
        note.unlink()


def holding(run: RunFolder, paths: Iterable[Path], digests: Collection[str]) -> Iterator[str]:
    """Those of `paths` that hold exactly what one of `digests` (SHA-256) is of, in sentences. Empty files hold nothing."""
    for path in paths:
        if path.is_file() and path.stat().st_size and digest(path.read_bytes()) in digests:
            yield f"{path.relative_to(run.path)} holds what was deleted"


def within_reach(run: RunFolder, site: str) -> list[Path]:
    """All files of a site, of the server, and of the run's folder itself; what the other sites hold is theirs."""
    places = (run.site(site).path.rglob("*"), run.server.path.rglob("*"), run.path.glob("*"))
    return sorted(path for place in places for path in place if path.is_file())

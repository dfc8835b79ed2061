"""The report: one file, inert, the same each time, and without an image where none may be."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import cut_off
from safetensors.numpy import save_file

from fedprivseg.core.config import Scenario
from fedprivseg.core.documents import write_document
from fedprivseg.core.errors import FolderError
from fedprivseg.core.records import Budget, CrossSite, CurvePoint
from fedprivseg.core.results import Result, Scores, SiteResult, metric_rows, read_result
from fedprivseg.core.task import default_task
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.study import pipeline
from fedprivseg.study.report import site_images
from fedprivseg.study.report.dice_groups import DiceGroups
from fedprivseg.study.report.report_page import write_report
from fedprivseg.study.report.slices import mosaic

SITES = ("centre1", "centre2", "centre3")
SHAPES = {
    "centre1": ((208, 240), (1.25, 1.25)),
    "centre2": ((240, 180), (1.2, 1.6)),
    "centre3": ((192, 192), (1.4, 1.4)),
}
SUBJECTS = 7
STRUCTURES = default_task().names


def heart(shape: tuple[int, int], spacing: tuple[float, float], shift: float, generator: np.random.Generator) -> Any:
    """A ring (LV and its muscle) and a crescent (RV) in mm: image (X, Y) float32 and labels (X, Y) uint8."""
    x, y = ((np.arange(size) - size / 2) * edge for size, edge in zip(shape, spacing, strict=True))
    left = np.hypot(*np.meshgrid(x - 12 - shift, y - 4, indexing="ij"))
    right = np.hypot(*np.meshgrid(x + 22 - shift / 2, y + 3, indexing="ij"))
    labels = np.zeros(shape, np.uint8)
    labels[right < 30] = 3
    labels[left < 33] = 2
    labels[left < 23] = 1
    image = np.choose(labels, [90, 420, 140, 400]) + 60 * np.sin(x / 17)[:, None] + generator.normal(0, 18, shape)
    return image.astype(np.float32), labels


def scores(values: np.ndarray) -> Scores:
    means = np.nanmean(values, axis=(0, 1))
    return Scores(
        structures=dict(zip(STRUCTURES, map(float, means), strict=True)),
        mean=float(means.mean()),
        missing=int(np.isnan(values).sum()),
    )


def write_run(
    folder: Path,
    *,
    images: bool = True,
    title: str = "",
    without_images: Sequence[str] = (),
    statuses: dict[str, str] | None = None,
    notes: tuple[str, ...] = (),
    exports: tuple[str, ...] = ("image-code", "mask-code", "metric", "status"),
    **more: Any,
) -> Path:
    """A finished run of three made-up hospitals, as `run.simulate` leaves it."""
    generator = np.random.default_rng(7)
    scenario = Scenario.model_validate(
        {
            "name": "three-hospitals",
            "question": "Do three hospitals outline the heart better together?",
            "sites": [
                {"name": s, "centre": int(s[-1]), "title": title or f"Centre {s[-1]}", "vendor": "Imaginary"}
                for s in SITES
            ],
            "method": {"name": "privacy-sf", "variant": "improved", "parameters": {"epochs": 10}},
            "report": {"images": images},
        }
    )
    sites, rows, identities = {}, [], {}
    for index, site in enumerate(SITES):
        dice = np.clip(generator.normal([0.9, 0.82, 0.86], 0.05, (SUBJECTS, 2, 3)) - 0.02 * index, 0, 1)
        distance = generator.gamma(4, 1.6, (SUBJECTS, 2, 3))
        distance[0, 0, 2] = np.nan
        values = {"dice": dice, "hd95_mm": distance, "assd_mm": distance / 4}
        rows += metric_rows(site, values, SUBJECTS, default_task())
        sites[site] = SiteResult(
            status=(statuses or {}).get(site, "ok"),
            subjects_train=18 + index,
            subjects_test=SUBJECTS,
            slices_train=400 + 31 * index,
            slices_test=161,
            bytes_up=21_400_000 + 2_000_000 * index,
            bytes_down=2_700_000,
            seconds=71.4 + 20 * index,
            peak_rss_mb=812.5,
            notes=notes if index == 1 else (),
            **{name: scores(value) for name, value in values.items()},
        )
        home = folder / "sites" / site
        (home / "vault").mkdir(parents=True)
        (home / "policy.toml").write_text('profile = "open-research"\n')
        key = SiteKey.create(home / "vault" / "key.pem")
        identities[site] = key.public_hex
        ledger = Ledger(home / "ledger.jsonl", key, site)
        for kind, purpose, count, size in (
            ("status", "describe", 1, 320),
            ("image-code", "train", 7, 1_060_000),
            ("mask-code", "train", 7, 1_060_000),
            ("image-code", "infer", 3, 880_000),
            ("metric", "measure", 1, 3_900),
        ):
            for _ in range(count):
                ledger.append("release", {"kind": kind, "purpose": purpose, "bytes": size})
        if index == 1:
            facts = {"kind": "weights", "purpose": "train", "bytes": 5, "rule": "kind.undeclared", "reason": "No <b>."}
            ledger.append("refusal", facts)
        if site not in without_images:
            save_file(images_of(site, generator), home / "vault" / "pictures.safetensors")
    (folder / "server").mkdir()
    (folder / "scenario.json").write_text(scenario.model_dump_json())
    (folder / "server" / "identities.json").write_text(json.dumps(identities))
    result = Result(
        scenario=scenario.model_dump(mode="json"),
        scenario_sha256=scenario.sha256,
        seed=0,
        method="privacy-sf",
        variant="improved",
        engine="inline",
        exports=exports,
        sites=sites,
        mean_dice={s: float(np.mean([site.dice.structures[s] for site in sites.values()])) for s in STRUCTURES},
        overall_dice=float(np.mean([site.dice.mean for site in sites.values()])),
        stages={"fit encoders": 141.2, "send codes": 6.1, "train mapping": 88.0, "decode and measure": 12.7},
        wall_s=251.3,
        resumed=False,
        peak_rss_mb=644.0,
        environment={"python": "3.11.9", "fedprivseg": "0.1.0", "torch": "2.13.0"},
        metrics=tuple(rows),
        **more,
    )
    result.write(folder)
    return folder


def images_of(site: str, generator: np.random.Generator) -> dict[str, np.ndarray]:
    shape, spacing = SHAPES[site]
    arrays: dict[str, np.ndarray] = {}
    for name, shift, dice in (("best", 0.5, 0.951), ("median", 3.0, 0.872), ("worst", 9.0, 0.634)):
        image, truth = heart(shape, spacing, 0, generator)
        arrays[f"{name}.image"], arrays[f"{name}.truth"] = image, truth
        arrays[f"{name}.prediction"] = heart(shape, spacing, shift, generator)[1]
        arrays[f"{name}.dice"] = np.array([dice])
        arrays[f"{name}.spacing"] = np.array([*spacing, 10.0])
    slice_ = np.clip(heart((128, 128), (1.5, 1.5), 0, generator)[0] / 500, 0, 1)
    coarse = slice_.reshape(8, 16, 8, 16).mean(axis=(1, 3))
    arrays["code.slice"] = slice_.astype(np.float32)
    code = generator.normal(0, 1, (128, 8, 8)) + np.linspace(-1, 1, 128)[:, None, None] * coarse
    arrays["code.code"] = code.astype(np.float32)
    return arrays


class Page(HTMLParser):
    """What a browser would make of it: tags with their attributes, text, and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "link", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += " ".join(data.split()) + " "

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its report, for tests that only read."""
    run = write_run(tmp_path_factory.mktemp("finished") / "run")
    pipeline.report(run)
    return run


@pytest.fixture(scope="module")
def text(finished: Path) -> str:
    return (finished / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run without images, which is quick to report, for tests that change it."""
    return write_run(tmp_path / "run", images=False)


def unmeasured(run: Path, sites: str) -> None:
    """Write the result again as of a run in which no site whose name begins so measured anything."""
    result = read_result(run)
    kept = tuple(row for row in result.metrics if not row.site.startswith(sites))
    result.model_copy(update={"metrics": kept}).write(run)


def written(folder: Path) -> str:
    return pipeline.report(folder).read_text(encoding="utf-8")


def test_report_is_one_small_offline_file(finished: Path, page: Page) -> None:
    # Nine test cases and three codes, of noisy images: a mail takes it. Charts, tables and rules are some 100 kB of it.
    assert (finished / "report.html").stat().st_size < 1_000_000
    assert not list(finished.glob(".*draft"))
    assert page.count("script") == page.count("link") == page.count("iframe") == 0
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for name in ("href", "aria-labelledby"):
        for _, attributes in page.tags:
            target = attributes.get(name) or ""
            assert (name == "href" and not target.startswith("#")) or target.lstrip("#") in [*ids, ""]


def test_report_is_deterministic(finished: Path, text: str) -> None:
    assert pipeline.report(finished) == finished / "report.html"
    assert (finished / "report.html").read_text(encoding="utf-8") == text


def test_report_shows_every_section_and_number(finished: Path, page: Page) -> None:
    headings = [
        "Results by hospital",
        "How the results spread",
        "Slices: best, median and worst case",
        "What left the hospital",
        "Data and time",
        "The hospitals' ledgers",
        "What the method declares may leave",
        "Settings and environment",
    ]
    places = [page.text.rindex(heading) for heading in headings]
    assert places == sorted(places)
    result = json.loads((finished / "result.json").read_text())
    for site in result["sites"].values():
        for value in (*site["dice"]["structures"].values(), site["dice"]["mean"]):
            assert f"{value:.3f}" in page.text
        assert f"{site['hd95_mm']['mean']:.1f}" in page.text
    assert f"{result['overall_dice']:.3f}" in page.text
    assert page.text.count("1 of 42") == 3  # one distance unknown of 7 subjects x 2 phases x 3 structures
    assert "no patient was scanned" in page.text
    assert "Imaginary" not in page.text[: places[-1]], (
        "who scanned is told by the subjects of a release, and not by a site's file"
    )
    # 128 channels of 8 x 8 are 8192 values; 128 x 128 are 16384 pixels: half a value for each.
    assert "128 × 8 × 8 = 8 192 values, 0.5 for each pixel" in page.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "not proof of privacy" in page.text
    assert "epochs = 10" in page.text
    # 7 + 7 + 3 codes, one description, one set of scores; with the refusal and the key line 21 lines at centre2.
    assert page.text.count("✓ Intact") == 3
    assert re.search(r"Centre 2 +✓ Intact.*? 21 +19 +1 +0 ", page.text)
    assert "kind.undeclared" in page.text


def test_every_image_has_a_text_and_every_table_headers(page: Page) -> None:
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == 1 + 3 * 5  # the chart; per site three cases, a slice and a code
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)
    assert page.count("caption") >= 6
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    assert [tag for tag, _ in page.tags if tag in ("h1", "main")] == ["h1", "main"]


def test_every_test_subject_is_a_dot(text: str) -> None:
    chart = text[text.index("<svg") : text.index("</svg>")]
    assert chart.count("<use ") >= len(SITES) * SUBJECTS * 2 * 3
    assert chart.count("<use ") <= len(SITES) * SUBJECTS * 2 * 3 + 40  # the rest: ticks


def test_without_images_none_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", images=False)

    def forbidden(path: Path) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr("fedprivseg.study.report.report_page.load_arrays", forbidden)
    monkeypatch.setattr(site_images, "open_vault", forbidden)
    text = written(run)
    page = Page(text)
    assert page.count("img") == page.count("image") == 0
    assert "data:image" not in text
    assert "base64," not in text
    assert page.count("svg") == 1  # the chart
    assert "report.images = false" in page.text
    assert "were not opened" in page.text
    for path in run.rglob("pictures.safetensors"):
        path.write_bytes(b"no images")
    assert written(run) == text


def test_drawing_the_page_opens_no_vault_and_writes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier stage left is shown; what it did not leave is named as missing."""
    run = write_run(tmp_path / "run")
    images = site_images.images_of(run)
    monkeypatch.setattr(site_images, "open_vault", None)
    before = {path for path in run.rglob("*") if path.is_file()}
    page = write_report(run, images, DiceGroups())
    assert {path for path in run.rglob("*") if path.is_file()} - before == {page}
    text = Page(page.read_text(encoding="utf-8")).text
    assert "Not judged: this folder holds no compliance.json" in " ".join(text.split())
    assert "Not measured: this run was not attacked" in text
    monkeypatch.undo()
    assert "Clause by clause" in Page(written(run)).text
    assert pipeline.assess(run) == pipeline.assess(run)


def test_without_a_word_on_images_there_are_none(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    content = json.loads((run / "result.json").read_text())
    del content["scenario"]["report"]
    write_document(run / "result.json", content)
    assert "data:image" not in written(run)


def test_with_images_they_are_those_of_the_run(text: str) -> None:
    found = re.findall(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)", text)
    assert len(found) == 3 * 5
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in found)
    assert len({zlib.crc32(base64.b64decode(image)) for image in found}) == len(found)


@pytest.mark.parametrize("title", ["<script>alert(1)</script>", "a\"b'c -->&amp;]]>", "$\\frac{1}{0}$ {{ 7*7 }}"])
def test_text_from_data_is_inert(tmp_path: Path, title: str) -> None:
    without = SITES if title.startswith("$") else SITES[1:]
    run = write_run(tmp_path / "run", title=title, notes=(title,), statuses={"centre3": title}, without_images=without)
    text = written(run)
    page = Page(text)
    assert page.count("script") == page.count("b") == 0
    assert title in page.text.replace("  ", " ")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_what_went_wrong_stands_before_the_results(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        images=False,
        statuses={"centre3": "refused at the intake in 'fit': not finite"},
        notes=("its training lost the class RV",),
        exports=("image-code", "raw", "metric"),
    )
    page = Page(written(run))
    top = page.text[: page.text.index("Left the hospitals")]
    for text in ("Attention", "not finite", "images and masks left the hospitals", "Please note", "lost the class RV"):
        assert text in top
    assert "left the run" in page.text


def test_a_site_without_measurements_is_shown_as_such(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", without_images=["centre2"])
    content = json.loads((run / "result.json").read_text())
    nothing = {"structures": dict.fromkeys(STRUCTURES), "mean": None, "missing": 0}
    content["sites"]["centre2"].update(subjects_test=0, dice=nothing, hd95_mm=nothing, assd_mm=nothing)
    write_document(run / "result.json", content)
    unmeasured(run, "centre2")
    page = Page(written(run))
    assert "has no test subjects" in page.text
    assert "No images: this hospital measured no test subjects." in page.text


def test_only_subjects_that_were_measured_are_counted(tmp_path: Path) -> None:
    """A site that left before it measured has test subjects, and none of them is behind the means."""
    status = "withheld by its gate in 'send_codes' (consent.no-longer-valid): The consent of a patient has expired."
    run = write_run(tmp_path / "run", statuses={"centre2": status}, without_images=["centre2"])
    unmeasured(run, "centre2")
    text = " ".join(Page(written(run)).text.split())
    assert "to the end: blocked by site policy: The consent of a patient has expired." in text
    assert "consent.no-longer-valid" not in text
    assert f"Test subjects {2 * SUBJECTS} " in text
    assert f" 0 of {SUBJECTS} " in text


def test_no_measurement_at_all_still_gives_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", without_images=SITES)
    unmeasured(run, "centre")
    page = Page(written(run))
    assert "there is no spread to show" in page.text
    assert "No example is kept" in page.text


def test_a_structure_that_is_never_found_is_told_at_the_top(run: Path) -> None:
    content = json.loads((run / "result.json").read_text())
    content["sites"]["centre2"]["dice"]["structures"]["RV"] = 0.0
    write_document(run / "result.json", content)
    text = Page(written(run)).text
    assert "missed RV in every test subject" in text[: text.index("Left the hospitals")]


def test_a_broken_ledger_is_told_with_its_line(run: Path) -> None:
    path = run / "sites" / "centre2" / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], lines[4].replace(b"1060000", b"1060001"), *lines[5:]]))
    page = Page(written(run))
    top = page.text[: page.text.index("Left the hospitals")]
    assert "line 4 of ledger.jsonl" in top
    assert page.text.count("✓ Intact") == 2
    assert "cannot be trusted" in page.text
    path.write_bytes(b"no ledger\n")
    assert "No counts: line 0 of ledger.jsonl" in Page(written(run)).text


def test_a_ledger_under_a_foreign_key_does_not_pass(run: Path) -> None:
    """A ledger written anew with another key is whole in itself; the server knows the site by the first key."""
    home = run / "sites" / "centre1"
    for path in home.glob("ledger.jsonl*"):
        path.unlink()
    Ledger(home / "ledger.jsonl", SiteKey.create(home / "other.pem"), "centre1")
    assert "foreign key" in Page(written(run)).text
    (run / "server" / "identities.json").unlink()
    assert "whose key that is was not checked" in Page(written(run)).text


def test_a_missing_ledger_is_no_silent_gap(run: Path) -> None:
    (run / "sites" / "centre1" / "ledger.jsonl").unlink()
    assert "A simulated hospital should have left one." in Page(written(run)).text


def test_unreadable_images_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", without_images=SITES[1:])
    (run / "sites" / "centre1" / "vault" / "pictures.safetensors").write_bytes(b"not arrays")
    page = Page(written(run))
    assert "its images could not be read" in page.text[: page.text.index("Left the hospitals")]


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no finished run"):
        pipeline.report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_result_of_other_sites_is_refused(run: Path) -> None:
    content = json.loads((run / "result.json").read_text())
    content["sites"]["../elsewhere"] = content["sites"].pop("centre1")
    write_document(run / "result.json", content)
    with pytest.raises(FolderError, match="other sites"):
        pipeline.report(run)


def test_mosaic_stretches_each_channel_and_keeps_x_to_the_right() -> None:
    """Two channels of 1 x 2: X has one value, Y two, so each tile is one wide and two high, Y downwards."""
    tiles = mosaic(np.array([[[1.0, 3.0]], [[5.0, 5.0]]]))
    np.testing.assert_array_equal(tiles, [[0, np.nan, 0], [1, np.nan, 0]])


@pytest.mark.parametrize("kind", ["best", "median", "worst"])
def test_a_subject_takes_little_room(text: str, kind: str) -> None:
    """A slice of a subject is at most 40 kB, most of it the noise of its pixels; 110 kB were common with matplotlib's paths."""
    found = re.findall(rf'<svg [^>]*aria-label="Centre \d, {kind} case.*?</svg>', text, re.DOTALL)
    assert len(found) == len(SITES)
    assert max(map(len, found)) < 40_000


def test_nothing_is_cut_off_at_any_width(tmp_path: Path) -> None:
    """Long titles, long reasons, attacks and many sites: tables and charts scroll by themselves, and all else wraps."""
    curve = tuple(CurvePoint(n, site, 1.0 / n, 0.1 * n, 0) for n in (1, 2, 3) for site in SITES)
    cross = tuple(CrossSite(a, b, 0.5) for a in SITES for b in SITES)
    status = {"centre3": "refused at the intake in 'fit': " + "not_finite_" * 12}
    title = "Hospital Universitari de la Vall d'Hebron, Servei de Cardiologia, Barcelona"
    run = write_run(tmp_path / "run", title=title, statuses=status, curve=curve, cross_site=cross)
    (tmp_path / "browser").mkdir()
    assert cut_off(written(run), tmp_path / "browser") == {}


def test_rounds_the_cross_site_matrix_and_budgets_are_shown(tmp_path: Path) -> None:
    curve = tuple(CurvePoint(n, site, 1.0 / n, 0.1 * n, 0) for n in (1, 2, 3) for site in SITES)
    cross = tuple(CrossSite(a, b, 0.9 if a == b else 0.5) for a in SITES for b in SITES)
    budget = Budget(SITES[0], "DP-SGD at the site", "slice", 7.99, 1e-3, 1.5)
    control = Budget(SITES[1], "DP-SGD's steps without noise", "slice", None, 1e-3, 0.0)
    folder = write_run(tmp_path / "run", curve=curve, cross_site=cross, budgets=(budget, control))
    page = pipeline.report(folder).read_text()
    assert "Round by round" in page
    assert "mean training loss" in page
    matrix = page.split('id="across"')[1].split("</table>")[0]
    assert matrix.count("0.500") == 6
    assert matrix.count("0.900") == 3
    assert "DP-SGD at the site" in page
    assert "7.99" in page
    assert "infinite: no promise" in page


def test_a_run_on_raw_data_says_so_in_red_and_claims_nothing_else(tmp_path: Path) -> None:
    page = pipeline.report(write_run(tmp_path / "run", exports=("metric", "raw"))).read_text()
    warning = page.split('class="box bad"')[1].split("</section>")[0]
    assert "Policy forbids this" in warning
    assert "kept its images" not in page

"""Runs side by side: what may stand in one table, the statistics by hand, and what is written."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from browser import laid_out
from scipy.stats import t, wilcoxon

from fedprivseg.core.admission_table import admission
from fedprivseg.core.config import AdmissionConfig
from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.leakage_record import read_leakage
from fedprivseg.core.records import Budget, CrossSite, CurvePoint
from fedprivseg.core.results import Result, Row, Scores, SiteResult
from fedprivseg.study.compare.compare_charts import bytes_png
from fedprivseg.study.compare.compare_page import write_page
from fedprivseg.study.compare.compare_tables import as_csv, as_latex, as_markdown, as_rows
from fedprivseg.study.compare.front_chart import leakage_png
from fedprivseg.study.compare.runs import compare, run_folders

SITES = ("centre1", "centre2")
SUBJECTS = 5


def dices(offset: float, seed: int = 0) -> np.ndarray:
    """(sites, subjects, 2 phases, 3 structures)."""
    return np.clip(0.7 + offset + 0.1 * np.random.default_rng(seed).random((2, SUBJECTS, 2, 3)), 0, 1)


def write_run(folder, name, values, *, seed=0, method="", exports=("metric", "weights"), **changes):
    """A finished run whose Dice are `values`; its distances are 10 * (1 - Dice), and missing where Dice is 0. method: if not
    the name. scenario: changes to it."""
    method = method or name
    scenario = {
        "name": name,
        "question": "",
        "seed": seed,
        "engine": "inline",
        "sites": [{"name": site, "centre": 1, "title": "", "vendor": ""} for site in SITES],
        "data": {"source": "phantom", "subjects": 9, "seed": 0, "split": "release", "test_fraction": 0.3},
        "grid": {"height": 32, "width": 32, "spacing": 2.0},
        "method": {"name": method, "variant": "default", "parameters": {"rounds": 4, "local_steps": 2, "what": name}},
        **changes.pop("scenario", {}),
    }
    part = f"f{scenario['data']['fold']}-" if scenario["data"]["split"] == "folds" else ""
    rows = [
        Row(
            site=site,
            subject=f"{site}-{part}t{subject:02d}",
            phase=phase,
            structure=structure,
            dice=float(values[i, subject, p, s]),
            hd95_mm=10 * (1 - float(values[i, subject, p, s])) or None if values[i, subject, p, s] else None,
            assd_mm=None,
        )
        for i, site in enumerate(SITES)
        for subject in range(SUBJECTS)
        for p, phase in enumerate(("ED", "ES"))
        for s, structure in enumerate(("LV", "MYO", "RV"))
    ]
    sites = {}
    for i, site in enumerate(SITES):
        mean = float(values[i].mean())
        scores = Scores(structures=dict.fromkeys(("LV", "MYO", "RV"), mean), mean=mean)
        far = Scores(structures=dict.fromkeys(("LV", "MYO", "RV"), 5), mean=5)
        sites[site] = SiteResult(
            status="ok",
            subjects_train=8,
            subjects_test=SUBJECTS,
            slices_train=80,
            slices_test=50,
            dice=scores,
            hd95_mm=far,
            assd_mm=far,
            bytes_up=2_000_000,
            bytes_down=4_000_000,
            seconds=30.0,
            peak_rss_mb=900,
        )
    result = Result(
        scenario=scenario,
        scenario_sha256="0" * 64,
        seed=seed,
        method=method,
        variant="default",
        engine="inline",
        exports=exports,
        sites=sites,
        mean_dice={name: float(values[..., s].mean()) for s, name in enumerate(("LV", "MYO", "RV"))},
        overall_dice=float(values.mean()),
        stages={"train": 1.0},
        wall_s=60.0,
        resumed=False,
        peak_rss_mb=500,
        environment={},
        metrics=tuple(rows),
        **{"split_sha256": "a" * 64, **changes},
    )
    folder.mkdir(parents=True)
    result.write(folder)
    return folder


STATED = {"compare": {"reference": "good", "floor": "", "group": ""}}
"""Of a scenario: the reference, fixed before the run."""


@pytest.fixture
def runs(tmp_path):
    curve = [
        CurvePoint(n, site, 1.0 / n, 0.2 * n if n % 2 == 0 else None, n * 10**6) for n in range(1, 5) for site in SITES
    ]
    for seed in (0, 1, 2):
        write_run(tmp_path / f"good-{seed}", "good", dices(0.1, seed), seed=seed, curve=tuple(curve), scenario=STATED)
        write_run(tmp_path / f"poor-{seed}", "poor", dices(0.0, seed), seed=seed, scenario=STATED)
    cross = tuple(CrossSite(a, b, 0.8 if a == b else 0.4) for a in SITES for b in SITES)
    write_run(tmp_path / "alone-0", "alone", dices(-0.1), method="local-only", exports=("metric",), cross_site=cross)
    write_run(tmp_path / "all-0", "pooled", dices(0.2), exports=("metric", "raw"))
    budget = Budget("centre1", "DP-SGD at the site", "slice", 8.0, 1e-3, 1.5)
    write_run(tmp_path / "dp-0", "private", np.zeros((2, SUBJECTS, 2, 3)), budgets=(budget,))
    return tmp_path


def test_one_row_a_method_best_first_and_the_forbidden_last(runs):
    found = compare([runs])
    assert [entry.label for entry in found.entries] == ["good", "poor", "local-only", "private", "pooled"]
    assert [entry.forbidden for entry in found.entries] == [False] * 4 + [True]
    assert found.entries[0].seeds == (0, 1, 2)
    assert found.reference == "good"


def test_a_run_without_a_promise_is_no_private_one(tmp_path):
    """The control of DP-SGD has an infinite epsilon, and the largest of several is shown."""
    budgets = (
        Budget("centre1", "DP-SGD at the site", "slice", 8.0, 1e-5, 1.5),
        Budget("centre2", "DP-SGD's steps without noise", "slice", None, 1e-5, 0.0),
    )
    write_run(tmp_path / "runs" / "control", "control", dices(0.0), budgets=budgets)
    found = compare([tmp_path / "runs"])
    (row,) = csv.DictReader(io.StringIO(as_csv(found)))
    assert row["epsilon"] == "inf"
    assert "infinite: no promise" in write_page(found, tmp_path / "compare.html").read_text()


def test_spread_is_over_seeds_and_the_interval_over_subjects(runs):
    good = compare([runs]).entries[0]
    each = [dices(0.1, seed).mean() for seed in (0, 1, 2)]
    assert good.mean == pytest.approx(np.mean(each))
    assert good.spread == pytest.approx(np.std(each, ddof=1))
    subjects = np.mean([dices(0.1, seed).mean(axis=(2, 3)) for seed in (0, 1, 2)], axis=0)
    # Two sites of five: the mean of two means, each with its own variance.
    errors = subjects.var(axis=1, ddof=1) / SUBJECTS / 4
    half = t.ppf(0.975, errors.sum() ** 2 / (errors**2 / (SUBJECTS - 1)).sum()) * np.sqrt(errors.sum())
    assert good.dice_interval == pytest.approx((good.mean - half, good.mean + half))
    assert compare([runs]).entries[2].spread is None


def test_differences_are_paired_by_subject(runs):
    poor = compare([runs]).entries[1]
    pairs = np.mean([dices(0.0, s) - dices(0.1, s) for s in (0, 1, 2)], axis=0).mean(axis=(2, 3)).ravel()
    assert poor.difference.median == pytest.approx(np.median(pairs)) == pytest.approx(-0.1)
    assert poor.difference.subjects == 10
    # All ten differences are negative: two-sided exact p = 2 / 2**10; ties from rounding aside it is the least there is.
    assert poor.difference.p == pytest.approx(wilcoxon(pairs).pvalue)
    assert poor.difference.p < 0.01


def test_a_reference_can_be_asked_for(runs):
    found = compare([runs], "alone")
    assert found.reference == "local-only"
    assert "asked for when the runs were compared" in found.notes[0]
    assert {e.label for e in found.entries if e.difference is None} == {"local-only"}
    with pytest.raises(RequestError, match="good, poor, local-only"):
        compare([runs], "nobody")


def test_without_a_reference_fixed_beforehand_nothing_is_tested(tmp_path):
    """Never the best on the test data: a table of two without a stated reference has neither differences nor p."""
    for name, offset in (("a", 0.1), ("b", 0.0)):
        write_run(tmp_path / name, name, dices(offset))
    found = compare([tmp_path])
    assert found.reference is None
    assert "No reference was fixed before the runs" in found.notes[0]
    assert {entry.difference for entry in found.entries} == {None}
    assert not [name for name in as_rows(found)[0] if "difference" in name or "p (" in name]
    assert "No reference was fixed" in write_page(found, tmp_path / "compare.html").read_text()


@pytest.mark.parametrize("stated", [("a", "b"), ("gone", "gone")], ids=["two", "absent"])
def test_a_stated_reference_must_be_one_and_here(tmp_path, stated):
    for name, reference in zip("ab", stated, strict=True):
        write_run(tmp_path / name, name, dices(0), scenario={"compare": {"reference": reference}})
    found = compare([tmp_path])
    assert found.reference is None
    assert " and ".join(dict.fromkeys(stated)) in found.notes[0]


def test_what_a_scenario_states_is_a_scenario_whatever_rows_are_called(tmp_path):
    """Two rows of one method: the one without a start is called by the method alone, as the other's scenario is."""
    started = {"name": "local-only", "variant": "default", "parameters": {"start": "phantom"}}
    stated = {"compare": {"reference": "", "floor": "local-only", "group": ""}}
    write_run(tmp_path / "a", "local-only", dices(0.2), method="local-only", scenario={"method": started, **stated})
    plain = {"name": "local-only", "variant": "default", "parameters": {"start": "random"}}
    write_run(tmp_path / "b", "scratch", dices(0), method="local-only", scenario={"method": plain, **stated})
    found = compare([tmp_path])
    assert {entry.label: entry.scenario for entry in found.entries} == {
        "local-only": "scratch",
        "local-only, start phantom": "local-only",
    }
    assert found.floor == "local-only, start phantom"


def test_the_floor_is_a_second_column(runs):
    found = compare([runs])
    good = found.entries[0]
    assert found.floor == "local-only"
    pairs = np.mean([dices(0.1, s) for s in (0, 1, 2)], axis=0) - dices(-0.1)
    assert good.above_floor.median == pytest.approx(np.median(pairs.mean(axis=(2, 3))))
    assert good.above_floor.p_holm >= good.above_floor.p
    header, rows = as_rows(found)
    assert rows[0][header.index("median above local-only")] == f"{good.above_floor.median:+.3f}"
    assert [row[0] for row in rows[2:5:2]] == ["local-only (floor)", "pooled (ceiling, forbidden: raw data left)"]
    # Of two local-only runs which is the floor is stated, or there is none.
    write_run(runs / "other-0", "other", dices(-0.2), method="local-only", exports=("metric",))
    two = compare([runs])
    assert two.floor is None
    assert any("state which in [compare] floor" in note for note in two.notes)
    write_run(runs / "third-0", "third", dices(-0.2), scenario={"compare": {"floor": "other"}})
    assert compare([runs]).floor.startswith("local-only, what other")


def test_the_least_p_is_told_once(runs):
    notes = " ".join(compare([runs]).notes)
    assert notes.count("With 10 subjects no exact two-sided p is below 0.002 (2^(1-n))") == 1


def test_missing_distances_are_counted_and_penalised(runs):
    private = compare([runs]).entry("private")
    assert (private.hd95.undefined, private.hd95.cells) == (60, 60)
    assert private.hd95.mean is None
    assert np.isnan(private.hd95.interval[0])
    # 32 x 32 pixels of 2 mm: from corner to corner 64 * sqrt(2) mm.
    assert private.hd95.penalised == pytest.approx(64 * np.sqrt(2))
    header, rows = as_rows(compare([runs]))
    shown = next(row for row in rows if row[0] == "private")
    assert (shown[header.index("undefined")], shown[header.index("HD95 penalised")]) == ("60 of 60", "90.5")


def test_one_missed_structure_is_penalised_once(tmp_path):
    values = dices(0)
    values[0, 0, 0, 0] = 0
    write_run(tmp_path / "a", "a", values)
    entry = compare([tmp_path]).entries[0]
    distances = np.where(values > 0, 10 * (1 - values), np.nan)
    assert entry.hd95.mean == pytest.approx(np.nanmean(distances.reshape(2, SUBJECTS, 6), axis=2).mean())
    distances[0, 0, 0, 0] = 64 * np.sqrt(2)
    assert entry.hd95.penalised == pytest.approx(distances.mean())
    assert (entry.hd95.undefined, entry.hd95.cells) == (1, 60)


def fold(number: int, **changes):
    data = {"source": "phantom", "seed": 0, "split": "folds", "folds": 2, "fold": number, **changes}
    return {"data": data}


def test_folds_of_one_partition_are_one_entry(tmp_path):
    """Over two folds and two seeds: 2 x 5 subjects a site, each the mean of its two seeds."""
    values = {(f, s): dices(0.01 * f, seed=10 * f + s) for f in (0, 1) for s in (0, 1)}
    for (f, s), each in values.items():
        parts = {"split_sha256": str(f) * 64, "subjects_sha256": "c" * 64}
        write_run(tmp_path / f"a-{f}-{s}", "a", each, seed=s, scenario=fold(f), **parts)
    found = compare([tmp_path])
    entry = found.entries[0]
    assert len(found.entries) == 1
    assert (entry.seeds, entry.folds, entry.subjects) == ((0, 1), (0, 1), 20)
    assert entry.mean == pytest.approx(np.mean([*values.values()]))
    assert entry.dice == pytest.approx([np.mean([values[f, s] for f in (0, 1)]) for s in (0, 1)])
    assert dict(found.facts)["Split"] == "2 folds by patient, here 0, 1"
    assert dict(found.facts)["Test subjects"] == "20"
    # Without one of the four the seeds are not of the same subjects, and their spread says nothing.
    assert compare([path for path in sorted(tmp_path.iterdir()) if path.name != "a-1-1"]).entries[0].spread is None


@pytest.mark.parametrize(
    ("other", "parts", "says"),
    [
        (fold(1, seed=1), {"split_sha256": "1" * 64, "subjects_sha256": "c" * 64}, "data.seed"),
        (fold(1, folds=3), {"split_sha256": "1" * 64, "subjects_sha256": "c" * 64}, "data.folds"),
        (fold(1), {"split_sha256": "1" * 64, "subjects_sha256": "d" * 64}, "subjects_sha256"),
        (fold(0), {"split_sha256": "1" * 64, "subjects_sha256": "c" * 64}, "split_sha256"),
        ({}, {"subjects_sha256": "c" * 64}, "data.split"),
    ],
    ids=["seed", "number", "subjects", "split", "no folds"],
)
def test_folds_that_may_share_subjects_are_refused(tmp_path, other, parts, says):
    kept = {"split_sha256": "0" * 64, "subjects_sha256": "c" * 64}
    write_run(tmp_path / "a", "a", dices(0), scenario=fold(0), **kept)
    write_run(tmp_path / "b", "b", dices(0), scenario=other, **parts)
    with pytest.raises(RequestError, match=says):
        compare([tmp_path])


def test_the_same_fold_twice_is_refused(tmp_path):
    for name in "ab":
        write_run(tmp_path / name, "a", dices(0), scenario=fold(1), subjects_sha256="c" * 64)
    with pytest.raises(RequestError, match="same fold, 1"):
        compare([tmp_path])


def test_curves_are_means_over_sites_and_seeds(runs):
    curve = compare([runs]).entries[0].curve
    assert curve.rounds == (2, 4)
    assert curve.dice == pytest.approx((0.4, 0.8))
    assert curve.megabytes == pytest.approx((2.0, 4.0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"split_sha256": "b" * 64}, "split_sha256"),
        ({"scenario": {"sites": [{"name": "other", "centre": 9}]}}, "sites"),
    ],
    ids=["split", "sites"],
)
def test_runs_on_other_data_are_refused_with_what_differs(runs, tmp_path, change, says):
    odd = write_run(tmp_path / "odd", "odd", dices(0), **change)
    with pytest.raises(RequestError, match=says) as fault:
        compare([runs / "good-0", odd])
    assert fault.value.status == 2


def test_another_grid_may_stand_beside_and_says_so(runs, tmp_path):
    alike = compare([runs])  # before another run lies beside them
    fine = write_run(
        tmp_path / "fine", "fine", dices(0.1), scenario={"grid": {"height": 64, "width": 64, "spacing": 1.0}}
    )
    differing = compare([runs / "good-0", fine])
    assert "grid" not in as_rows(alike)[0]
    assert ("Grid", "32 x 32 pixels of 2.0 mm") in alike.facts
    header, rows = as_rows(differing)
    assert {row[0]: row[header.index("grid")] for row in rows} == {
        "fine": "64 x 64 pixels of 1.0 mm",
        "good": "32 x 32 pixels of 2.0 mm",
    }
    assert "Grid" not in dict(differing.facts)


def test_the_same_seed_twice_is_refused(runs, tmp_path):
    again = write_run(tmp_path / "again", "good", dices(0.1))
    with pytest.raises(RequestError, match="same seed"):
        compare([runs / "good-0", again])


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(FolderError, match="no finished run"):
        run_folders([tmp_path])


def test_csv_has_every_number(runs):
    rows = list(csv.DictReader(io.StringIO(as_csv(compare([runs])))))
    assert [row["label"] for row in rows] == ["good", "poor", "local-only", "private", "pooled"]
    assert float(rows[0]["mb_up_per_site"]) == 2.0
    assert rows[3]["epsilon"] == "8.0"
    assert rows[3]["hd95_low95"] == ""
    assert rows[4]["raw_data_left"] == "True"


def test_latex_is_escaped(tmp_path):
    write_run(tmp_path / "a", "100-percent", dices(0))
    write_run(tmp_path / "b", "under_score & 5 % ~", dices(0.1))
    text = as_latex(compare([tmp_path / "a", tmp_path / "b"]))
    assert r"under\_score \& 5 \%" in text
    assert text.count(r"\\") == 3
    columns = text.splitlines()[2].count("&") - text.splitlines()[2].count(r"\&") + 1
    assert text.startswith(r"\begin{tabular}{l" + "r" * (columns - 1) + "}")


def test_markdown_has_a_row_a_method(runs):
    found = compare([runs])
    lines = as_markdown(found).splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + 5
    assert lines[8:] == [f"- {note}" for note in found.notes]


def test_the_page_stands_alone_and_marks_what_policy_forbids(runs, tmp_path):
    page = write_page(compare([runs]), tmp_path / "compare.html").read_text()
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert "<script" not in page
    assert re.search(r'class="forbidden.*?pooled', page, re.DOTALL)
    assert "Policy forbids this" in page
    assert "DP-SGD at the site" in page
    assert page.count('class="cell"') == 4
    assert "nan" not in page.lower().replace("finance", "")
    again = write_page(compare([runs]), tmp_path / "again.html")
    assert again.read_text() == page


def test_two_methods_of_one_scenario_name_are_named_by_their_method_everywhere(tmp_path):
    """Two runs of `quickstart` that differ in their method: the table, CSV, LaTeX, Markdown and figures call them by it."""
    for method, offset in (("privacy-sf", 0.1), ("fedavg", 0.0)):
        _attacked(write_run(tmp_path / method, "quickstart", dices(offset), method=method), 0.3)
    found = compare([tmp_path])
    assert [entry.label for entry in found.entries] == ["privacy-sf", "fedavg"]
    assert [row["label"] for row in csv.DictReader(io.StringIO(as_csv(found)))] == ["privacy-sf", "fedavg"]
    assert [row["scenario"] for row in csv.DictReader(io.StringIO(as_csv(found)))] == ["quickstart", "quickstart"]
    assert [line.split(" & ")[0] for line in as_latex(found).splitlines()[4:6]] == ["privacy-sf", "fedavg"]
    assert [line.split(" | ")[0] for line in as_markdown(found).splitlines()[2:4]] == ["| privacy-sf", "| fedavg"]
    page = write_page(found, tmp_path / "compare.html").read_text()
    assert len(re.findall(r"<text [^>]*>privacy-sf</text>", page)) == 2  # both scatters; neither run has a curve
    assert "(2)" not in page
    # The interval is that of the run, whatever it is compared with.
    assert compare([tmp_path / "fedavg"]).entries[0].dice_interval == found.entries[1].dice_interval


def test_a_reference_may_be_a_scenario_that_one_entry_has(tmp_path):
    write_run(tmp_path / "a", "study-a", dices(0.1), method="fedavg")
    write_run(tmp_path / "b", "study-b", dices(0.0), method="fedprox")
    write_run(tmp_path / "c", "study-b", dices(0.0), method="scaffold")
    assert compare([tmp_path], "study-a").reference == "fedavg"
    with pytest.raises(RequestError, match="there are 2 runs 'study-b'"):
        compare([tmp_path], "study-b")


def test_nothing_is_cut_off_and_at_1100_pixels_the_whole_table_shows(runs, tmp_path):
    """With `difference` and `p`, intervals and leakage; narrower, the table scrolls by itself."""
    for folder in runs.glob("*-0"):
        _attacked(folder, 0.4)
    (tmp_path / "browser").mkdir()
    found = laid_out(write_page(compare([runs]), tmp_path / "compare.html").read_text(), tmp_path / "browser")
    assert {width: each["faults"] for width, each in found.items() if each["faults"]} == {}
    assert found[1100]["scrolling"] == found[1600]["scrolling"] == []
    assert "Results" in found[400]["scrolling"]


def test_the_picture_is_a_png(runs):
    body = bytes_png(compare([runs]))
    assert body.startswith(b"\x89PNG")
    assert int.from_bytes(body[16:20], "big") == 1200


def test_names_cannot_break_out_of_the_page(tmp_path):
    write_run(tmp_path / "a", "<script>alert(1)</script>", dices(0))
    page = write_page(compare([tmp_path / "a"]), tmp_path / "compare.html").read_text()
    assert "<script>" not in page


def test_json_of_the_command(runs, tmp_path, capsys):
    from typer.testing import CliRunner

    from fedprivseg.cli import app

    done = CliRunner().invoke(app, ["compare", str(runs), "-o", str(tmp_path / "c.html"), "--json"])
    assert done.exit_code == 0, done.output
    content = json.loads(done.output)
    assert (content["reference"], content["floor"]) == ("good", "local-only")
    assert content["rows"][0]["hd95_cells"] == 180
    assert len(content["notes"]) >= 3
    assert (tmp_path / "c.html").exists()


def _attacked(folder, leakage, control=0.99, linkage=None):
    measure = {"measure": "SSIM", "value": leakage, "low": None, "high": None, "floor": 0.0, "neighbour": 0.1}
    measure |= {"own_decoder": None, "ceiling": 1.0, "leakage": leakage}
    redrawn = {
        "attack": "a",
        "title": "A",
        "paper": "",
        "setting": "",
        "site": "centre1",
        "what": "images",
        "knows": "",
    }
    redrawn |= {"slices": 3, "subjects": 1, "measures": [measure], "recognised": 0.1, "chance": 0.1, "seconds": 1.0}
    staged = {**redrawn, "measures": [{**measure, "leakage": control}], "staged": True}
    content = {"scenario_sha256": "", "method": "fedavg", "variant": "", "protections": [], "budget": "small"}
    linked = {
        "attack": "linkage",
        "title": "",
        "paper": "",
        "site": "centre1",
        "knows": "",
        "measure": "AUC",
        "value": linkage,
    }
    inferred = [] if linkage is None else [{**linked, "chance": 0.5, "raw": None, "count": ""}]
    content |= {
        "sites": ["centre1"],
        "auxiliary": "",
        "redrawn": [redrawn, staged],
        "inferred": inferred,
        "left_out": [],
    }
    (folder / "attacks.json").write_text(json.dumps({**content, "seconds": 1.0}))


def test_leakage_is_the_mean_over_attacked_seeds_and_staged_attacks_do_not_count(tmp_path):
    for seed, leakage in ((0, 0.2), (1, 0.4)):
        write_run(tmp_path / f"a{seed}", "a", dices(0.1), seed=seed)
        _attacked(tmp_path / f"a{seed}", leakage)
    write_run(tmp_path / "b", "b", dices(0.0))
    write_run(tmp_path / "raw", "raw", dices(0.2), exports=("metric", "raw"))
    entries = {entry.label: entry for entry in compare([tmp_path]).entries}
    assert entries["a"].leakage == pytest.approx(0.3)
    assert entries["b"].leakage is None
    assert entries["raw"].leakage == 1
    header, rows = as_rows(compare([tmp_path]))
    assert {row[0]: row[header.index("leakage")] for row in rows}["a"] == "0.30"
    assert leakage_png(compare([tmp_path]))[:4] == b"\x89PNG"
    assert "Dice against leakage" in write_page(compare([tmp_path]), tmp_path / "x.html").read_text()


def test_where_an_attack_fails_its_control_nothing_is_known(tmp_path):
    write_run(tmp_path / "a", "a", dices(0.1))
    write_run(tmp_path / "b", "b", dices(0.0))
    write_run(tmp_path / "c", "c", dices(0.0))
    _attacked(tmp_path / "a", -0.2, control=0.1)
    _attacked(tmp_path / "b", -0.2, control=0.6)
    _attacked(tmp_path / "c", -0.2, control=0.1, linkage=0.75)
    entries = {entry.label: entry for entry in compare([tmp_path]).entries}
    assert (entries["a"].unknown, entries["b"].unknown) == (True, False)
    assert entries["a"].leakage is None
    header, rows = as_rows(compare([tmp_path]))
    shown = {row[0]: row[header.index("leakage")] for row in rows}
    assert shown == {"a": "not known", "b": "0.00", "c": "not known, at least 0.50"}
    leakage = read_leakage(tmp_path / "a")
    assert {line.measured for line in admission(leakage, AdmissionConfig()) if "images" in line.name} == {None}
    assert leakage_png(compare([tmp_path]))


def test_without_an_attack_there_is_no_leakage_to_show(tmp_path):
    write_run(tmp_path / "b", "b", dices(0.0))
    comparison = compare([tmp_path])
    assert "leakage" not in as_rows(comparison)[0]
    with pytest.raises(RequestError, match="fedprivseg attack"):
        leakage_png(comparison)


def test_fronts_are_of_what_shares_something(tmp_path):
    """Floor and ceiling stand in no front, and the floor dominates what segments no better."""
    for name, offset, leakage in (("a", 0.1, 0.3), ("b", 0.2, 0.6), ("c", -0.2, 0.2)):
        _attacked(write_run(tmp_path / name, name, dices(offset)), leakage)
    _attacked(write_run(tmp_path / "d", "d", dices(0.2), exports=("metric", "image-code")), 0.5)
    _attacked(write_run(tmp_path / "e", "e", dices(0.2)), 0.1, control=0.1)
    _attacked(write_run(tmp_path / "local-only", "local-only", dices(0)), 0.9)  # not what its Dice needs
    write_run(tmp_path / "pooled", "pooled", dices(0.25), exports=("metric", "raw"))
    found = compare([tmp_path])
    at = {entry.label: entry.mean for entry in found.entries}
    fronts = {front.group: front for front in found.fronts}
    assert list(fronts) == ["all", "averaging", "codes-only"]
    assert fronts["averaging"].labels == ("c", "a", "b")
    assert fronts["averaging"].unknown == ("e",)
    by_hand = at["c"] * 0.1 + at["a"] * 0.3 + at["b"] * 0.4
    assert fronts["averaging"].hypervolume == pytest.approx(by_hand)
    assert fronts["codes-only"].hypervolume == pytest.approx(at["d"] * 0.5)
    assert fronts["all"].labels == ("c", "a", "d")  # b and d segment alike, and d leaks less
    told = next(note for note in found.notes if note.startswith("Hypervolume"))
    assert f"averaging {by_hand:.3f} (3 methods, 1 not known)" in told
    assert f"the floor alone {at['local-only']:.3f}" in told
    beaten = {entry.label for entry in found.entries if found.dominated(entry)}
    assert beaten == {"b", "c"}
    assert found.entry("e").leakage is None
    page = write_page(found, tmp_path / "compare.html").read_text()
    assert "b (dominated)" in page
    assert "e (leakage not known)" in page.replace("\n", " ")
    assert f"floor: local-only {at['local-only']:.3f}" in page
    assert f"ceiling: pooled {at['pooled']:.3f}" in page


def test_a_scenario_may_name_its_group(tmp_path):
    _attacked(write_run(tmp_path / "a", "a", dices(0), scenario={"compare": {"group": "mine"}}), 0.5)
    assert [front.group for front in compare([tmp_path]).fronts] == ["all", "mine"]


def test_leakage_of_several_runs_has_an_interval(tmp_path):
    for seed, leakage in ((0, 0.2), (1, 0.4), (2, 0.3)):
        _attacked(write_run(tmp_path / f"a{seed}", "a", dices(0.1), seed=seed), leakage)
    entry = compare([tmp_path]).entries[0]
    half = t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert entry.leakage_interval == pytest.approx((0.3 - half, 0.3 + half))

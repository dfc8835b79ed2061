"""What becomes of a run that suffers a fault: every case of `fault_cases`, carried out: the table of `study/faults/README.md`.

    PYTHONPATH=tests python tests/benchmarks/fault_table.py [NAME ...]

Some seconds each. Ends with status 1 if a case came out otherwise than it says.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from fault_cases import CASES, Case, Outcome, carry_out, settings_of

ENDS = {0: "0", 2: "2", 3: "3", -9: "killed (137)"}


def row(name: str, case: Case, first: Outcome, last: Outcome, expected: dict[str, bytes]) -> tuple[str, bool]:
    """The line of one case, and whether it came out as it says."""
    same = last.numbers == expected
    right = first.status == case.status and case.says in first.said and set(last.left) == set(case.left)
    right = right and all(why in last.left[site] for site, why in case.left.items()) and same == case.same
    right = right and last.status == (case.status if case.again is None else 0)
    right = right and (not case.notes or any(case.notes in note for note in last.notes))
    if first.status and case.again is None:
        said = first.said.partition(": ")[2]
        return f"| {name}: {case.what} | ends | {ENDS[first.status]} | none | `{said[:150]}...` |", right
    goes = "goes on with all" if not last.left else f"goes on without {', '.join(sorted(last.left))}"
    if case.again is not None:
        goes = f"ends; the same command {goes}"
    told = [f"{site}: {why}" for site, why in sorted(last.left.items())]
    told += [note for note in last.notes if note.startswith("centre") and ("outlying" in note or "away" in note)]
    says = "; ".join(f"`{each[:110].rstrip('. ')}`" for each in told) or "-"
    numbers = "the same, bit for bit" if same else ("those of fewer sites" if last.left else "others")
    return f"| {name}: {case.what} | {goes} | {ENDS[first.status]} | {numbers} | {says} |", right


def main(names: list[str]) -> int:
    """Carry out the cases and print their lines."""
    from fedprivseg.imaging.phantom.consortium import write_phantom

    os.fsync = lambda descriptor: None  # no power cut is waited for
    wrong, right = [], {}
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("FEDPRIVSEG_CACHE", f"{place}/cache")
        phantom = write_phantom(Path(place) / "release", 3, 0, centres=(1, 2, 3))
        print("| fault | the run | status | numbers | what result and report say of a site |")
        print("| --- | --- | --- | --- | --- |", flush=True)
        for place_in_table, name in enumerate(names or CASES):
            case, folder = CASES[name], Path(place) / str(place_in_table)
            if case.base not in right:
                right[case.base] = carry_out(Path(place) / f"right{len(right)}", phantom, [*case.base], apart=False)
            first = last = carry_out(folder, phantom, settings_of(case), apart=case.status < 0)
            if case.again is not None:
                last = carry_out(folder, phantom, settings_of(case), apart=False)
            line, good = row(name, case, first, last, right[case.base].numbers)
            print(line, flush=True)
            if not good:
                wrong.append(name)
                print(f"{name}: not as it says: {first.status} {first.said} {last.left}", file=sys.stderr, flush=True)
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What encryption to the server's key costs a payload: the way from the gate to the intake, plain and encrypted, side by side.

    python tests/benchmarks/sealed_transport.py [--mib 0.01 1 8] [--times 9]

For each size a payload of random codes is released by a gate (decision, signature, one line of a ledger on a disk) and taken
in by an intake (signature, opening, checks), once plain and once encrypted in turn, so that both share the machine's moods.
Beside it stands HPKE's encryption and opening alone. Prints Markdown: the fastest of each in milliseconds, which other work on
the machine disturbs least, the ratio of the two, MB/s of payload (10^6 bytes), and the bytes that encryption adds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedprivseg.core.expected import Array, Expected
from fedprivseg.core.kinds import IMAGE_CODE, KINDS
from fedprivseg.core.records import Order, Payload, digest
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.crypto.hpke import EncryptionKey, KeyCertificate, slot
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.policy.gate import Gate, Released
from fedprivseg.governance.policy.policy_context import PolicyContext, Transfer
from fedprivseg.governance.policy.profile import read_profile
from fedprivseg.runtime.server.intake import Intake
from fedprivseg.runtime.wire import Released as Sent

SITE, ROW = "centre1", 4096
EXPECTED = Expected(IMAGE_CODE, "train", {"codes": Array("float16", (None, ROW))})


def arrived(intake: Intake, order: Order, sent: Sent) -> Payload:
    """A release as the server takes it: opened, then checked."""
    name = digest(sent.body)
    body = intake.opened(SITE, order, EXPECTED, sent, name)
    return intake.checked(SITE, order, EXPECTED, body, digest(body) if sent.encrypted_to else name)


def timed(way: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that `way` took, and what it returned."""
    begun = time.perf_counter()
    found = way()
    return time.perf_counter() - begun, found


def main() -> None:
    """Prints one row a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=float, nargs="+", default=[0.01, 1, 8], help="sizes of the payload, MiB")
    parser.add_argument("--times", type=int, default=9, help="how often each is measured")
    given = parser.parse_args()
    print(
        "| payload, MiB | plain, ms | encrypted, ms | ratio | plain, MB/s | encrypted, MB/s | HPKE alone, ms | bytes added |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for size in given.mib:
        print(_row(size, given.times), flush=True)


def _row(size: float, times: int) -> str:
    site, server = (SiteKey(Ed25519PrivateKey.generate()) for _ in range(2))
    opener = EncryptionKey(X25519PrivateKey.generate())
    card = KeyCertificate.issue(server, opener)
    rows = max(1, round(size * 2**20 / (2 * ROW)))
    codes = numpy_generator(0, "benchmark").standard_normal((rows, ROW)).astype(np.float16)
    spent: dict[str, list[float]] = {"plain": [], "encrypted": [], "alone": []}
    lengths = {}
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl", site, SITE)
        intake = Intake("run", {SITE: site.public_hex}, opener)
        for number in range(times):
            for name, threshold in (("plain", "never"), ("encrypted", 1)):
                policy = read_profile("open-research").model_copy(update={"encrypt_from": threshold})
                parties = Transfer(site.public_hex, server.public_hex, card=card)
                standing = PolicyContext(policy, date(2026, 1, 1), parties)
                gate, action = Gate(frozenset(KINDS), SITE, standing), f"send-{name}"
                payload = Payload(
                    IMAGE_CODE, SITE, "train", {"codes": codes}, shard=number, shards=times, history=(name,)
                )
                body, declared = payload.encode(), partial(replace, EXPECTED, history=(name,), views=1)
                release = partial(gate.release, run_id="run", number=number, expected=declared)
                out, released = timed(partial(release, body, ledger, site, action))
                assert isinstance(released, Released), released.decision
                sent = Sent(
                    released.body, released.signature, site.public_hex, "", 0.0, 0.0, released.encrypted_to, SITE
                )
                into, taken = timed(lambda: arrived(intake, Order(action, number), sent))  # noqa: B023
                assert taken.encode() == body
                spent[name].append(out + into)
                lengths[name] = len(released.body) - len(body)
            place = slot("run", SITE, "alone", number, IMAGE_CODE)
            shut, sealed = timed(lambda: card.seal(place, body))  # noqa: B023
            opened, _ = timed(lambda: opener.open(place, sealed))  # noqa: B023
            spent["alone"].append(shut + opened)
    plain, encrypted, alone = (min(spent[name]) for name in ("plain", "encrypted", "alone"))
    speed = [len(body) / 1e6 / seconds for seconds in (plain, encrypted)]
    return (
        f"| {size:g} | {plain * 1e3:.2f} | {encrypted * 1e3:.2f} | {encrypted / plain:.2f} | {speed[0]:.0f} | {speed[1]:.0f} | "
        f"{alone * 1e3:.2f} | {lengths['encrypted'] - lengths['plain']} |"
    )


if __name__ == "__main__":
    main()

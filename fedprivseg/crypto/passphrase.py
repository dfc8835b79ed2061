"""Keys made of passphrases: how long one must be, and what it costs to try one (scrypt, RFC 7914).

T/SCGS 313008-2024 clauses 5.4.2-a, 5.4.2-b.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fedprivseg.core.errors import RequestError

PASSPHRASE_CHARACTERS = 15
"""The shortest passphrase: NIST SP 800-63B-4, section 3.1.1, for a secret that is the only factor. A stolen file can be
guessed at without limit, so no shorter one is taken."""


@dataclass(frozen=True)
class Cost:
    """The cost of scrypt (RFC 7914): it takes 128 r N bytes of memory, p times over, with N = 2 ** `log2_n`.

    The default N = 2^17, r = 8, p = 1 is what the OWASP Password Storage Cheat Sheet (2024) asks for at least: 128 MiB, and
    0.4 s on one core as measured. It is paid once a session, not once a file. Raises RequestError beyond 1 GiB or 16 passes:
    a cost is read from files, and a file must not be able to exhaust the machine.
    """

    log2_n: int = 17
    r: int = 8
    p: int = 1

    def __post_init__(self) -> None:
        # N < 2^(128 r / 8): RFC 7914, section 6.
        fits = 1 <= self.log2_n <= 20 and 1 <= self.r <= 255 and 1 <= self.p <= 16 and self.log2_n < 16 * self.r
        if not fits or 128 * self.r << self.log2_n > 1 << 30:
            raise RequestError(
                f"scrypt with N = 2^{self.log2_n}, r = {self.r}, p = {self.p} is not taken: N is 2^1 to 2^20, p is 1 to 16, "
                "and 128 r N at most 1 GiB. Leave the cost out for the recommended one."
            )


def check_passphrase(passphrase: str) -> None:
    """Raise RequestError if `passphrase` is too short to make a key of."""
    if len(_normal(passphrase).decode()) < PASSPHRASE_CHARACTERS:
        raise RequestError(
            f"the passphrase is too short: it must have at least {PASSPHRASE_CHARACTERS} characters. Several words that "
            "were drawn by chance are easy to keep."
        )


def derive(passphrase: str, cost: Cost, salt: bytes, length: int) -> bytes:
    """`length` bytes made of `passphrase` and `salt` at `cost`. Raises RequestError for what is no text."""
    return Scrypt(salt=salt, length=length, n=1 << cost.log2_n, r=cost.r, p=cost.p).derive(_normal(passphrase))


def _normal(passphrase: str) -> bytes:
    """The passphrase in NFC (as RFC 8265 asks), so that it is the same on every keyboard."""
    try:
        return unicodedata.normalize("NFC", passphrase).encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError("the passphrase is no text that can be encoded. Type it again.") from None

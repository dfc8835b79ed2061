"""Homomorphic encryption of arrays, clause 5.2 of T/SCGS 313008-2024: CKKS (Cheon, Kim, Kim and Song, ASIACRYPT 2017).

Who holds a public context can add, scale and multiply what it cannot read; who holds the secret key reads the result. Numbers
are approximate: with the parameters here every multiplication costs about a millionth of the largest value.

Three limits. A decrypted result carries noise that tells of the secret key: whoever computed must never be given what was
decrypted of it (Li and Micciancio, EUROCRYPT 2021). Nothing proves what was computed: a result may be of anything. And
ciphertexts are not authenticated: the label of their context and a checksum, carried along, catch mistakes and no attacker.

The library is TenSEAL over Microsoft SEAL, and optional: ``pip install fedprivseg[he]``.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
from collections.abc import Callable
from typing import Any, final

import numpy as np

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.deidentify.operation import Done, Operation
from fedprivseg.governance.policy.technique_table import Technique

DEGREE = 8192
MODULUS_BITS = (60, 40, 40, 60)
"""200 bits in all; at degree 8192 up to 218 keep 128 bits of security (Homomorphic Encryption Standard 2018, table 1)."""

SCALE_BITS = 40
SLOTS = DEGREE // 2
"""Numbers in one ciphertext; longer arrays take several."""

LARGEST = 2.0 ** (MODULUS_BITS[0] - SCALE_BITS - 1)
"""The largest absolute value of an array and of a result: what the first modulus holds at this scale. Beyond it numbers may
wrap round, and nobody can see that on a ciphertext."""

LABEL_BYTES = 16

_BODY = LABEL_BYTES + hashlib.sha256().digest_size
_CONTEXT = b"fedprivseg ckks context 1\n"
_VALUES = b"fedprivseg ckks values 1\n"


@final
class Encrypted:
    """An encrypted array (float64 once decrypted): its shape is told, its values are not.

    Two levels of the modulus are there to be spent: a `scale` spends one, a `dot` one, and what has spent both can only be
    added and decrypted.
    """

    __slots__ = ("chunks", "label", "shape")

    def __init__(self, chunks: tuple[Any, ...], shape: tuple[int, ...], label: bytes) -> None:
        """Wrap TenSEAL vectors of `SLOTS` numbers each (the last one shorter) as an array of `shape`, made with the context of
        this `label`."""
        self.chunks = chunks
        self.shape = shape
        self.label = label

    def add(self, other: Encrypted) -> Encrypted:
        """The sum of two encrypted arrays of one shape."""
        self._alike(other)
        return self._made(lambda: tuple(mine + its for mine, its in zip(self.chunks, other.chunks, strict=True)))

    def scale(self, factor: float) -> Encrypted:
        """The array times one number that is no secret. Spends a level."""
        if not math.isfinite(factor):
            raise RequestError(f"the factor is {factor!r}; a finite number is needed.")
        return self._made(lambda: tuple(chunk * float(factor) for chunk in self.chunks))

    def dot(self, other: Encrypted | np.ndarray) -> Encrypted:
        """The inner product with an encrypted array or with one that is no secret, as an encrypted array of shape ().

        Spends a level.
        """
        self._alike(other)
        if isinstance(other, Encrypted):
            weights: tuple[Any, ...] = other.chunks
        else:
            weights = tuple(chunk.tolist() for chunk in _chunked(other))

        def product() -> tuple[Any, ...]:
            first, *rest = [mine.dot(its) for mine, its in zip(self.chunks, weights, strict=True)]
            for part in rest:
                first = first + part
            return (first,)

        return self._made(product, ())

    def to_bytes(self) -> tuple[bytes, ...]:
        """The ciphertexts, one for every `SLOTS` numbers, about 330 kB each: version, label, SHA-256, TenSEAL's format."""
        return tuple(_closed(_VALUES, self.label, chunk.serialize()) for chunk in self.chunks)

    def __repr__(self) -> str:
        return f"Encrypted(shape={self.shape})"

    def _alike(self, other: Encrypted | np.ndarray) -> None:
        if other.shape != self.shape:
            raise RequestError(f"arrays of shape {self.shape} and {other.shape} were given; they must have one shape.")
        if isinstance(other, Encrypted) and other.label != self.label:
            raise RequestError("the arrays were encrypted with different contexts; encrypt both with the same one.")

    def _made(self, compute: Callable[[], tuple[Any, ...]], shape: tuple[int, ...] | None = None) -> Encrypted:
        try:
            return Encrypted(compute(), self.shape if shape is None else shape, self.label)
        except (ValueError, RuntimeError):
            raise RequestError(
                "these ciphertexts cannot be combined: no level is left to spend. A fresh ciphertext allows "
                f"{len(MODULUS_BITS) - 2} multiplications; encrypt anew, or multiply less often."
            ) from None


@final
class Homomorphic(Operation):
    """A CKKS context: with the secret key at the site, without it wherever is computed. Nothing prints its keys."""

    technique = Technique.HOMOMORPHIC_ENCRYPTION
    guarantee = "computational: 128 bits against who holds no secret key and sees no decrypted result; shapes are told"
    reversal = "key holder: up to rounding"

    __slots__ = ("_context", "label")

    def __init__(self, context: Any, label: bytes) -> None:
        """Wrap a TenSEAL context; `create` and `load` make one. label: `LABEL_BYTES` that are no secret and tell it apart."""
        self._context = context
        self.label = label

    @classmethod
    def create(cls, threads: int = 1) -> Homomorphic:
        """A new context with its secret key, from the operating system's randomness. threads: that computations may use."""
        tenseal = _tenseal()
        context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, DEGREE, -1, list(MODULUS_BITS), n_threads=threads)
        context.global_scale = 2.0**SCALE_BITS
        context.generate_galois_keys()
        return cls(context, os.urandom(LABEL_BYTES))

    @classmethod
    def load(cls, body: bytes, threads: int = 1) -> Homomorphic:
        """The context that `public_bytes` or `secret_bytes` wrote. Raises RequestError for other bytes."""
        label, rest = _opened(body, _CONTEXT)
        try:
            return cls(_tenseal().context_from(rest, threads), label)
        except (ValueError, RuntimeError):
            raise RequestError("the bytes hold no CKKS context; take those that public_bytes() gave.") from None

    @property
    def is_secret(self) -> bool:
        """Whether the secret key is here, so that this context decrypts."""
        return bool(self._context.has_secret_key())

    def public_bytes(self) -> bytes:
        """The context without its secret key, for whoever computes: about 35 MB, nearly all of it for `dot`."""
        return _closed(_CONTEXT, self.label, self._context.serialize(save_secret_key=False))

    def secret_bytes(self) -> bytes:
        """The context with its secret key, for the site's own vault. Raises RequestError where there is none."""
        self._needs_key("written")
        return _closed(_CONTEXT, self.label, self._context.serialize(save_secret_key=True))

    def apply(self, array: np.ndarray) -> Done[Encrypted]:
        """`array` (any shape of at least one number, real, finite, at most `LARGEST` in size) encrypted, and what was done."""
        tenseal = _tenseal()
        chunks = tuple(tenseal.ckks_vector(self._context, chunk.tolist()) for chunk in _chunked(array))
        line = f"{self.technique}: CKKS, degree {DEGREE}, modulus of {sum(MODULUS_BITS)} bits"
        return Done(Encrypted(chunks, array.shape, self.label), line)

    def undo(self, encrypted: Encrypted) -> np.ndarray:
        """The array, float64. Raises RequestError where the secret key is not, for what another context encrypted, and for
        values beyond `LARGEST`, which no sound computation gives."""
        self._needs_key("used")
        self._own(encrypted.label)
        key = self._context.secret_key()
        array = np.concatenate([np.asarray(chunk.decrypt(key), np.float64) for chunk in encrypted.chunks])
        if not (np.abs(array) <= LARGEST).all():
            raise RequestError(
                f"the ciphertext decrypts to values beyond {LARGEST:g}: what was computed is too large, or the bytes are not "
                "what this context encrypted. Scale the arrays down before they are encrypted, or take another copy."
            )
        return array.reshape(encrypted.shape)

    def received(self, bodies: tuple[bytes, ...], shape: tuple[int, ...]) -> Encrypted:
        """The encrypted array of `shape` in the ciphertexts that ``to_bytes`` gave, for use with this context.

        Raises RequestError if they are no ciphertexts of this context's parameters, or hold another number of values.
        """
        tenseal = _tenseal()
        opened = [_opened(body, _VALUES) for body in bodies]
        for label, _ in opened:
            self._own(label)
        try:
            chunks = tuple(tenseal.ckks_vector_from(self._context, rest) for _, rest in opened)
        except (ValueError, RuntimeError):
            raise RequestError(
                "the bytes hold no ciphertexts of this context; take those that to_bytes() gave."
            ) from None
        sizes = [chunk.size() for chunk in chunks]
        if sizes != _sizes(math.prod(shape)):
            raise RequestError(f"the ciphertexts hold {sum(sizes)} values; {shape} needs {math.prod(shape)}.")
        return Encrypted(chunks, shape, self.label)

    def __repr__(self) -> str:
        return f"Homomorphic(is_secret={self.is_secret})"

    def _own(self, label: bytes) -> None:
        if label != self.label:
            raise RequestError("the array was encrypted with another context; take the context that it was made with.")

    def _needs_key(self, verb: str) -> None:
        if not self.is_secret:
            raise RequestError(
                f"this context has no secret key that could be {verb}: it is a public one. Ask the site that holds the key."
            )


def _chunked(array: np.ndarray) -> list[np.ndarray]:
    """`array` as float64 vectors of `SLOTS` numbers, the last one shorter."""
    if array.dtype.kind not in "biuf" or not array.size:
        raise RequestError(
            f"an array of shape {array.shape} and type {array.dtype} was given; at least one real number is needed."
        )
    flat = array.astype(np.float64).reshape(-1)
    if not np.isfinite(flat).all() or np.abs(flat).max() > LARGEST:
        raise RequestError(
            f"values must be finite and of absolute size {LARGEST:g} at most; scale the array down first."
        )
    return np.split(flat, range(SLOTS, flat.size, SLOTS))


def _sizes(values: int) -> list[int]:
    return [min(SLOTS, values - start) for start in range(0, values, SLOTS)]


def _closed(head: bytes, label: bytes, body: bytes) -> bytes:
    """`body` behind `head`, the `label` and a checksum of both: TenSEAL accepts some bodies that are cut short."""
    return head + label + hashlib.sha256(label + body).digest() + body


def _opened(body: bytes, head: bytes) -> tuple[bytes, bytes]:
    """The label and the body of what `_closed` made with `head`."""
    labelled = body[len(head) :]
    label, checksum, rest = labelled[:LABEL_BYTES], labelled[LABEL_BYTES:_BODY], labelled[_BODY:]
    if not body.startswith(head) or hashlib.sha256(label + rest).digest() != checksum:
        raise RequestError(
            f"the bytes are not those of {head.decode().strip()!r}, or were damaged; take them anew from where they were made."
        )
    return label, rest


def _tenseal() -> Any:
    """TenSEAL, imported only here: it is optional and takes its time."""
    try:
        return importlib.import_module("tenseal")
    except ImportError:
        raise RequestError(
            "homomorphic encryption needs the package 'tenseal', which is not installed. Install the extra fedprivseg[he]."
        ) from None

"""What every protection keeps: shape and type of the codes, the same for the same payload, and its own history."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedprivseg.core.config import ProtectionConfig
from fedprivseg.core.expected import Array, Expected
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE
from fedprivseg.core.records import Payload
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.core.techniques import Technique
from fedprivseg.governance.policy.declaration import departure
from fedprivseg.protections import PROTECTIONS, Shield, protected, resolve
from fedprivseg.protections.operation import ArrayOperation, SeedKey
from fedprivseg.testing.contract import Contract

KEY = SeedKey(0, ("centre1", "test"), ("a", 0))
FORM = {"codes": Array("float16", (None, 6, 4, 4))}


def codes_for(count: int = 5) -> np.ndarray:
    """Codes (count, 6, 4, 4) float32."""
    return numpy_generator(0, "codes").standard_normal((count, 6, 4, 4)).astype(np.float32)


class ProtectionContract(Contract):
    """What every protection keeps, with an example of every parameter that has no default."""

    registry = PROTECTIONS

    def test_shape_type_and_finite(self, part: type[ArrayOperation]) -> None:
        """They are declared before any code is seen."""
        codes = codes_for()
        found = _made(part).apply(codes, KEY)
        assert found.shape == codes.shape
        assert found.dtype == np.float32
        assert np.isfinite(found).all()

    def test_the_same_payload_again_is_protected_the_same(self, part: type[ArrayOperation]) -> None:
        """Asking twice shows nothing new."""
        first, again = (_made(part).apply(codes_for(), KEY) for _ in range(2))
        np.testing.assert_array_equal(first, again)

    def test_it_changes_something_and_says_so(self, part: type[ArrayOperation]) -> None:
        """In the history, in its guarantee, and in the words of Table 2."""
        protection, codes = _made(part), codes_for()
        assert (protection.apply(codes, KEY) != codes).any()
        assert protection.history(codes.shape[1:])
        assert protection.guarantee.split(":")[0] in ("formal", "computational", "none")
        assert protection.techniques
        assert all(isinstance(each, Technique) for each in protection.techniques)

    def test_no_slices_are_no_fault(self, part: type[ArrayOperation]) -> None:
        """A site may have nothing to send."""
        assert _made(part).apply(codes_for(0), KEY).shape == (0, 6, 4, 4)

    def test_what_it_was_given_stays(self, part: type[ArrayOperation]) -> None:
        """The site goes on with its own codes."""
        codes = codes_for()
        before = codes.copy()
        _made(part).apply(codes, KEY)
        np.testing.assert_array_equal(codes, before)

    def test_it_declares_the_history_that_it_leaves(self, part: type[ArrayOperation]) -> None:
        """The gate lets no other word out."""
        config = _config(part)
        expected = Expected(IMAGE_CODE, "train", FORM, ("float16",), views=1)
        done, history = Shield((config,), 0, "centre1").apply(IMAGE_CODE, codes_for().astype(np.float16), ("a", 0))
        sent = Payload(IMAGE_CODE, "centre1", "train", {"codes": done}, history=("float16", *history))
        assert departure(sent, protected((config,), expected), 0) is None
        assert departure(replace(sent, history=("float16",)), protected((config,), expected), 0) is not None
        assert departure(sent, expected, 0) is not None, "a protection that is not in the scenario"
        assert protected((config,), replace(expected, kind=MASK_CODE)).history == ("float16",)

    def test_it_may_change_neither_shape_nor_type(self, part: type[ArrayOperation]) -> None:
        """The gate blocks what departs from the declaration."""
        expected = protected((_config(part),), Expected(IMAGE_CODE, "train", FORM, views=1))
        for shape, dtype, rule in [((2, 6, 4, 5), "float16", "shape"), ((2, 6, 4, 4), "float32", "dtype")]:
            arrays = {"codes": np.zeros(shape, dtype)}
            decision = departure(Payload(IMAGE_CODE, "centre1", "train", arrays, history=expected.history), expected, 0)
            assert decision is not None
            assert decision.rule == f"declaration.{rule}"


def _config(part: type[ArrayOperation]) -> ProtectionConfig:
    needed = {name: field.examples[0] for name, field in part.model_fields.items() if field.examples}
    return ProtectionConfig(name=part.name, of=(IMAGE_CODE,), parameters=needed)


def _made(part: type[ArrayOperation]) -> ArrayOperation:
    return resolve(_config(part))

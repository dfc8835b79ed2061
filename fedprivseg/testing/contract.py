"""What all contracts share: which parts are tested, that they are registered, and images of a phantom to test them on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fedprivseg.core.plugins import Registry
from fedprivseg.imaging.phantom.consortium import write_phantom

CENTRES = (1, 2, 3)


class Contract:
    """The base of all contracts.

    Attributes:
        parts: what is tested.
        registry: where a scenario or a command looks for it.
    """

    parts: ClassVar[Iterable[Any]]
    registry: ClassVar[Registry[Any]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Every test that takes a `part` is run for each."""
        if "part" in metafunc.fixturenames:
            metafunc.parametrize("part", list(self.parts), ids=lambda part: part.name)

    @pytest.fixture(scope="session")
    @classmethod
    def release(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A release of three centres with three labelled subjects each."""
        return write_phantom(tmp_path_factory.mktemp("phantom") / "release", 3, 0, centres=CENTRES)

    def test_it_is_registered(self, part: Any) -> None:
        """Install the package (``pip install -e .``) if it is not."""
        assert part.name in self.registry.names, "not installed: run `pip install -e .` in the folder of its package"
        assert self.registry.find(part.name) is part

    def test_it_says_what_it_is(self, part: Any) -> None:
        """In words for a reader."""
        assert part.paper
        assert part.__doc__

"""What a run's folder says of its method: for those who read the folder and know no method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from pydantic import ValidationError

from fedprivseg.core.documents import content_of, damaged
from fedprivseg.core.files import write_text
from fedprivseg.core.model import Frozen

METHOD_CARD = "method.json"
"""In the run's folder."""

What = Literal["images", "masks"]
"""Of what a code is a code."""


@final
@dataclass(frozen=True)
class Sent:
    """A stream of codes (or of slices as they are) that a site sends, in shards; `methods.shards.part_of` says which rows stand
    in which. A method that sends streams has a parameter ``shard_slices``.

    Attributes:
        action: which sends it.
        what: of what it is.
        side: of whose slices: ``train``: those of `Site.training`, ``test``: of `Site.testing`.
        shuffled: whether the rows of each view are in the order that the site's vault keeps (`methods.release_order`), and not
            as the slices lie.
    """

    action: str
    what: What
    side: Literal["train", "test"]
    shuffled: bool = False


@final
class MethodCard(Frozen):
    """A method as a run's folder describes it.

    Attributes:
        title: its name for people.
        coded: whether its sites send codes and the server alone has a network. Otherwise every site has learned from the
            average of all.
        sends: the streams of codes or slices that its sites send.
    """

    title: str
    coded: bool
    sends: tuple[Sent, ...] = ()

    def write(self, run: Path) -> None:
        """Write it into the run's folder. Raises OSError."""
        write_text(run / METHOD_CARD, self.model_dump_json(indent=1))

    @classmethod
    def read(cls, run: Path) -> MethodCard:
        """The card in the run's folder. Raises FolderError if it is gone or damaged."""
        path = run / METHOD_CARD
        remedy = "Run the scenario into this folder again: that writes it, and trains nothing that is done"
        try:
            return cls.model_validate_json(content_of(path, remedy))
        except ValidationError:
            raise damaged(path, "was changed, or is cut short", remedy) from None

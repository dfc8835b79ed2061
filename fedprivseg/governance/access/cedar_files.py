"""Files of Cedar policies: what they must hold to be relied on, and what they say in words.

Each policy has an id, the clause that it follows and the rule as a sentence, and may have a notice for the user. Files of the
package permit and forbid; a hospital's own only forbid.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import is_companion

if TYPE_CHECKING:  # the engine is loaded when it is first asked something: whoever only names a rule does without
    import cedarpy

MOST_BYTES = 1 << 18
"""Bound on the bytes of a policy file; those on a request stand with its records (`roles`)."""

OWN = "hospital."
"""How the ids of a hospital's own policies begin, so that a decision says whose rule it was."""

_ANNOTATIONS = ("id", "clause", "says", "notice")
_ID = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


@dataclass(frozen=True)
class Policy:
    """A policy in words.

    Attributes:
        effect: ``permit`` or ``forbid``.
        clause: of the standard, or what a hospital names.
        says: the rule as a sentence.
        notice: what the user is to be shown when it decides, empty if nothing.
    """

    id: str
    effect: str
    clause: str
    says: str
    notice: str = ""


def own_files(folder: Path) -> list[Path]:
    """A hospital's own policy files in its `folder`, sorted; none if there is no folder. Raises RequestError."""
    try:
        files = (path for path in folder.iterdir() if path.suffix.casefold() == ".cedar")
        return sorted(path for path in files if not is_companion(path))
    except FileNotFoundError:
        return []
    except OSError as fault:
        raise RequestError(
            f"the folder {folder.name}/ of the site cannot be read ({type(fault).__name__}). Restore it, or take it away."
        ) from None


def policy_text(path: Path) -> str:
    """The text of a policy file. Raises RequestError if it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise RequestError(
            f"the policy file {path.name} cannot be read ({type(fault).__name__}). Nothing is decided without it: "
            "restore it, or leave it out of the site's policy files."
        ) from None
    if len(raw) > MOST_BYTES:
        raise RequestError(f"the policy file {path.name} holds more than {MOST_BYTES} bytes. Split it.")
    return text


def check_policies(name: str, text: str, schema: cedarpy.Schema, *, own: bool) -> None:
    """Check one policy file on its own, so that a file that ends within a policy cannot change the next.

    Args:
        name: of the file.
        text: what it holds.
        schema: of the package.
        own: whether it is a hospital's, which only forbids.

    Raises:
        RequestError: it does not hold annotated policies that fit the schema.
    """
    import cedarpy

    try:
        parsed = cedarpy.policies_to_pst(text)
    except ValueError as fault:
        raise RequestError(f"the policy file {name} is not in the Cedar language: {fault}. Correct it.") from None
    if parsed.templates or not parsed.static_policies:
        raise RequestError(f"the policy file {name} holds a template, or no policy. Write policies without slots.")
    for number, policy in parsed.static_policies.items():
        given = policy.annotations
        lacking = [key for key in ("id", "clause", "says") if not given.get(key)]
        unknown = sorted(set(given) - set(_ANNOTATIONS))
        if lacking or unknown or not _ID.fullmatch(given["id"]) or given["id"].startswith("access."):
            raise RequestError(
                f"{name}: the policy {given.get('id') or number} has annotations {', '.join(sorted(given)) or 'none'}; "
                f"it needs @id, @clause and @says, not empty, may have @notice, and nothing else. An id is of lower-case "
                "letters, digits, dots and hyphens and does not begin with 'access.'."
            )
        if own != given["id"].startswith(OWN) or (own and policy.effect != "forbid"):
            raise RequestError(
                f"{name}: the policy {given['id']} is a {policy.effect}. A site's own policies can only forbid, and their ids "
                f"begin with '{OWN}'; write it as a forbid with such an id, or take it out."
            )
    result = cedarpy.validate_policies(text, schema)
    if not result.validation_passed:
        known = result.id_annotations_by_policy_id
        faults = sorted({f"{known.get(each.policy_id, each.policy_id)}: {each.error}" for each in result.errors})
        raise RequestError(
            f"{name}: policies do not fit the schema. {'; '.join(faults) or 'The validator does not say why'}. "
            "Speak only of what schema.cedarschema declares."
        )


def policies_of(text: str) -> dict[str, Policy]:
    """The policies in `text` by the number that Cedar answers with."""
    import cedarpy

    parsed = cedarpy.policies_to_pst(text).static_policies
    found = {}
    for number, node in parsed.items():
        words = node.annotations
        found[number] = Policy(words["id"], node.effect, words["clause"], words["says"], words.get("notice", ""))
    return found

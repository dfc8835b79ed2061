"""A hospital's policy: what may leave it, for what, and under which protections. Nobody else can relax it.

A policy file stands on one of the profiles in `profiles/` and says where the hospital differs::

    profile = "open-research"
    max_level = 2

Everything that a policy does not allow is refused. A file that is missing, cannot be read or says something unknown is no
policy, and a site without a policy releases nothing. `meet` of two policies allows only what both allow: this is how a
simulation makes a site stricter for the sake of a question, and why it can never make one more open.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from fedprivseg.core.config import AdmissionConfig, RawSharing
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.kinds import KindSpec, ProtectableKind
from fedprivseg.core.model import Frozen
from fedprivseg.core.toml_text import read_toml
from fedprivseg.core.validation import Name, validated
from fedprivseg.governance.policy.field_rules import FieldRule, allowed, choice, demanded, limit, limits
from fedprivseg.governance.policy.grading import Grading

Purpose = Literal["describe", "train", "infer", "measure"]
"""What a payload is for: to say how much a site brings, to train, to segment, to tell what was measured."""

Level = Literal[1, 2, 3, 4, 5]
"""Sensitivity, 1 (public) to 5 (strictly limited): T/SCGS 313008-2024 clause 5.5."""

EncryptFrom = Literal[1, 2, 3, 4, 5, "never"]
"""From which level on what leaves is encrypted to the server's key."""


Kinds = tuple[KindSpec, ...]


class Demand(Frozen):
    """A protection without which payloads of a kind do not leave.

    Attributes:
        of: the kind.
        protection: its name.
        at_least: lower bounds on its parameters, by name.
        at_most: upper bounds.
    """

    of: ProtectableKind
    protection: Name
    at_least: dict[str, float] = Field(default_factory=dict)
    at_most: dict[str, float] = Field(default_factory=dict)

    def met_by(self, parameters: Mapping[str, Any]) -> bool:
        """Whether a protection of that name with `parameters` is strong enough. A parameter that is absent is not."""
        return all(parameters.get(name, float("-inf")) >= low for name, low in self.at_least.items()) and all(
            parameters.get(name, float("inf")) <= high for name, high in self.at_most.items()
        )

    def in_words(self) -> str:
        """Such as ``noise with multiplier at least 1 on every image-code``."""
        bounds = [f"{name} at least {low:g}" for name, low in sorted(self.at_least.items())]
        bounds += [f"{name} at most {high:g}" for name, high in sorted(self.at_most.items())]
        return f"{self.protection}{' with ' if bounds else ''}{' and '.join(bounds)} on every {self.of}"


class SitePolicy(Frozen):
    """What one site lets happen. The defaults allow nothing.

    A field is one entry here: its name, its type, the rule by which two policies meet in it and a change of it reads, with
    the rule ids that enforce it, and its default.
    """

    profile: Name
    says: str = Field(min_length=20, description="what the policy covers, in a sentence or two")
    kinds: Annotated[Kinds, allowed("leave", "kind.not-allowed", "raw-data.not-allowed")] = ()
    """Kinds of payload that may leave."""
    purposes: Annotated[tuple[Purpose, ...], allowed("be served", "purpose.not-allowed")] = ()
    max_level: Annotated[
        Level, limit("The highest level that may leave goes from {before} to {after}.", "level.too-high")
    ] = 1
    raw_sharing: Annotated[
        RawSharing,
        choice(
            "forbidden",
            "Raw images and masks may no longer leave.",
            "Raw images and masks may now leave.",
            "raw-data.not-allowed",
        ),
    ] = "forbidden"
    """Whether the policy explicitly allows raw images and masks to leave."""
    consent: Annotated[
        Literal["register", "release"],
        choice(
            "register",
            "Only subjects whose consent is on file and covers the study are now enrolled.",
            "The licence of the data's release now stands for consent.",
            "consent.no-register",
            "consent.no-subjects",
        ),
    ] = "register"
    agreement: Annotated[
        Literal["required", "none"],
        choice(
            "required",
            "A signed and current data-use agreement is now needed.",
            "No data-use agreement is needed any more.",
            "governance.policy.agreement",
        ),
    ] = "required"
    demands: Annotated[
        tuple[Demand, ...],
        demanded("Now demanded", "No longer demanded", "protection.missing", show=Demand.in_words),
    ] = ()
    """Protections that codes must have."""
    strategy: Annotated[
        tuple[Grading, ...],
        demanded("Now graded", "No longer graded", "technique.not-recommended", show=Grading.in_words),
    ] = ()
    """How kinds of payload are graded for clause 5.2, and whether a technique that its table does not recommend is refused."""
    special_diseases: Annotated[
        tuple[str, ...], demanded("Now a special disease", "No longer a special disease", "level.too-high")
    ] = ()
    """Pathologies, as the site's table names them in any case, whose images are of level 5."""
    retention_days: Annotated[
        int | None,
        Field(ge=0, le=36_500),
        limit(
            "What was made of patients' data may be kept for {after}, before {before}.",
            "retention.expired",
            show=lambda days: "no term" if days is None else f"{days} days",
        ),
    ] = None
    at_rest: Annotated[
        Literal["encrypted", "plain"],
        choice(
            "encrypted",
            "The site's vault must now be encrypted.",
            "The site's vault may now be plain.",
            "governance.sitefolder.vault",
        ),
    ] = "encrypted"
    admission: Annotated[
        AdmissionConfig,
        limits("The admission threshold of {name} goes from {before} to {after}.", "study.leakage.admission"),
    ] = AdmissionConfig()
    """How much a method may leak."""
    encrypt_from: Annotated[
        EncryptFrom,
        limit(
            "What leaves is now encrypted to the server's key {after}, before {before}.",
            "encryption.no-valid-key",
            unlimited="never",
            show=lambda level: "at no level" if level == "never" else f"from level {level} on",
        ),
    ] = 1
    within_domain: Annotated[Kinds, allowed("pass within the security domain", "transfer.within-domain")] = ()
    """Kinds that may pass to a server in the site's own security domain."""
    across_domains: Annotated[Kinds, allowed("pass to another security domain", "transfer.across-domains")] = ()
    """Kinds that may pass to a server in another or an unknown security domain."""
    encrypt_across: Annotated[
        Literal["always", "by-level"],
        choice(
            "always",
            "What goes to another security domain is now encrypted at any level.",
            "What goes to another security domain is now encrypted by its level alone.",
            "encryption.no-valid-key",
        ),
    ] = "always"

    ledger: Annotated[
        Literal["line", "stage"],
        choice(
            "line",
            "Each line of the ledger must now be on the disk before what it permits leaves.",
            "The ledger's lines of one stage may now come to the disk together, after what they permit has left.",
            "governance.ledger.ledger",
        ),
    ] = "line"
    """Whether a power cut may take the last lines of a stage, which the server's ledger then tells of; the end of the program
    takes none."""

    @field_validator("kinds", "purposes", "special_diseases", "within_domain", "across_domains")
    @classmethod
    def _sorted(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        # In one order, without repetition: two policies that allow the same are then equal.
        return tuple(sorted(set(values)))


def profile_names() -> list[str]:
    """The names of the profiles that come with the package, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _profiles().iterdir() if entry.name.endswith(".toml"))


def read_profile(name: str) -> SitePolicy:
    """The profile `name` as it stands. Raises ScenarioError naming those that exist."""
    return parse_policy({"profile": name}, f"profile {name}")


def read_policy(path: Path) -> SitePolicy:
    """The policy in a TOML file. Raises ScenarioError if it is absent, does not parse or says something unknown."""
    return parse_policy(read_toml(path), path.name)


def parse_policy(content: Mapping[str, Any], where: str) -> SitePolicy:
    """The policy that `content` states: its profile's rules, replaced where it says something itself. Raises ScenarioError."""
    name, known = content.get("profile"), profile_names()
    if name not in known:
        raise ScenarioError(f"{where}: profile is {name!r}; a policy stands on one of: {', '.join(known)}")
    base = read_toml(Path(str(_profiles() / f"{name}.toml")))
    return validated(SitePolicy, {**base, **content}, where)


def field_rules() -> dict[str, FieldRule]:
    """The rule of each field of a policy that can be stricter, by its name."""
    fields = SitePolicy.model_fields.items()
    return {name: rule for name, field in fields for rule in field.metadata if isinstance(rule, FieldRule)}


def meet(one: SitePolicy, other: SitePolicy) -> SitePolicy:
    """The policy that allows what both allow and demands what either demands. It is never more open than either."""
    says = one.says if one.says == other.says else f"{one.says} Narrowed by {other.profile}: {other.says}"
    fields = {name: rule.meet(getattr(one, name), getattr(other, name)) for name, rule in field_rules().items()}
    return SitePolicy(profile=one.profile, says=says, **fields)


def differences(one: SitePolicy, other: SitePolicy) -> tuple[str, ...]:
    """What changes from `one` to `other`, a sentence each; nothing for two policies that rule alike."""
    values = [(rule, getattr(one, name), getattr(other, name)) for name, rule in field_rules().items()]
    return tuple(sentence for rule, old, new in values if old != new for sentence in rule.words(old, new))


def _profiles() -> Any:
    return resources.files("fedprivseg.governance.policy") / "profiles"

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
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from fedprivseg.core.config import AdmissionConfig, Name, RawSharing, read_toml, validated
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.kinds import KindSpec, ProtectableKind
from fedprivseg.core.model import Frozen
from fedprivseg.governance.policy.grading import Grading

Purpose = Literal["describe", "train", "infer", "measure"]
"""What a payload is for: to say how much a site brings, to train, to segment, to tell what was measured."""

Level = Literal[1, 2, 3, 4, 5]
"""Sensitivity, 1 (public) to 5 (strictly limited): T/SCGS 313008-2024 clause 5.5."""

EncryptFrom = Literal[1, 2, 3, 4, 5, "never"]
"""From which level on what leaves is encrypted to the server's key."""


class Demand(Frozen):
    """A protection without which payloads of a kind stay. at_least, at_most: bounds on its parameters, by name."""

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

    kinds: payload kinds that may leave. purposes: what for. max_level: the highest sensitivity of what leaves.
    raw_sharing: whether raw images and masks may leave, in so many words. consent: ``register`` takes only subjects whose
    consent is on file and covers the study; ``release`` relies on the licence under which a data set was released.
    agreement: whether a signed, current data-use agreement is needed. demands: protections that codes must have. strategy: how
    kinds of payloads are graded for clause 5.2, and whether what its table advises against is refused.
    special_diseases: pathologies, as the site's table names them in any case, whose images are of level 5.
    retention_days: how long what was made of patients' data may be kept, None for no term. at_rest: whether the site's
    vault is encrypted. admission: how much a method may leak. encrypt_from: from which level on content is encrypted to the
    server's key. within_domain, across_domains: kinds that may pass to a server in the site's own security domain, and to one
    in another or an unknown one; encrypt_across: whether what goes to the latter is encrypted at any level.
    """

    profile: Name
    says: str = Field(min_length=20, description="what the policy covers, in a sentence or two")
    kinds: tuple[KindSpec, ...] = ()
    purposes: tuple[Purpose, ...] = ()
    max_level: Level = 1
    raw_sharing: RawSharing = "forbidden"
    consent: Literal["register", "release"] = "register"
    agreement: Literal["required", "none"] = "required"
    demands: tuple[Demand, ...] = ()
    strategy: tuple[Grading, ...] = ()
    special_diseases: tuple[str, ...] = ()
    retention_days: int | None = Field(default=None, ge=0, le=36_500)
    at_rest: Literal["encrypted", "plain"] = "encrypted"
    admission: AdmissionConfig = AdmissionConfig()
    encrypt_from: EncryptFrom = 1
    within_domain: tuple[KindSpec, ...] = ()
    across_domains: tuple[KindSpec, ...] = ()
    encrypt_across: Literal["always", "by-level"] = "always"

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


def meet(one: SitePolicy, other: SitePolicy) -> SitePolicy:
    """The policy that allows what both allow and demands what either demands. It is never more open than either."""
    terms = [term for term in (one.retention_days, other.retention_days) if term is not None]
    limits = {
        name: min(getattr(one.admission, name), getattr(other.admission, name))
        for name in type(one.admission).model_fields
    }
    return SitePolicy(
        profile=one.profile,
        says=one.says if one.says == other.says else f"{one.says} Narrowed by {other.profile}: {other.says}",
        kinds=tuple(kind for kind in one.kinds if kind in other.kinds),
        purposes=tuple(purpose for purpose in one.purposes if purpose in other.purposes),
        max_level=min(one.max_level, other.max_level),
        raw_sharing="allowed" if one.raw_sharing == other.raw_sharing == "allowed" else "forbidden",
        consent="release" if one.consent == other.consent == "release" else "register",
        agreement="none" if one.agreement == other.agreement == "none" else "required",
        demands=one.demands + tuple(demand for demand in other.demands if demand not in one.demands),
        strategy=one.strategy + tuple(grading for grading in other.strategy if grading not in one.strategy),
        special_diseases=one.special_diseases + other.special_diseases,
        retention_days=min(terms, default=None),
        at_rest="plain" if one.at_rest == other.at_rest == "plain" else "encrypted",
        admission=AdmissionConfig(**limits),
        encrypt_from=min((one.encrypt_from, other.encrypt_from), key=_closed_from),
        within_domain=tuple(kind for kind in one.within_domain if kind in other.within_domain),
        across_domains=tuple(kind for kind in one.across_domains if kind in other.across_domains),
        encrypt_across="by-level" if one.encrypt_across == other.encrypt_across == "by-level" else "always",
    )


def differences(one: SitePolicy, other: SitePolicy) -> tuple[str, ...]:
    """What changes from `one` to `other`, a sentence each; nothing for two policies that rule alike."""
    found = []
    for name, verb in (
        ("kinds", "leave"),
        ("purposes", "be served"),
        ("within_domain", "pass within the security domain"),
        ("across_domains", "pass to another security domain"),
    ):
        before, after = set(getattr(one, name)), set(getattr(other, name))
        if gone := sorted(before - after):
            found.append(f"No longer may {verb}: {', '.join(gone)}.")
        if come := sorted(after - before):
            found.append(f"Now may {verb}: {', '.join(come)}.")
    if one.max_level != other.max_level:
        found.append(f"The highest level that may leave goes from {one.max_level} to {other.max_level}.")
    if one.encrypt_from != other.encrypt_from:
        was, now = (
            "at no level" if each == "never" else f"from level {each} on"
            for each in (one.encrypt_from, other.encrypt_from)
        )
        found.append(f"What leaves is now encrypted to the server's key {now}, before {was}.")
    for name, words in _CHOICES:
        if getattr(one, name) != getattr(other, name):
            found.append(words[getattr(other, name)])
    found += [f"Now demanded: {demand.in_words()}." for demand in other.demands if demand not in one.demands]
    found += [f"No longer demanded: {demand.in_words()}." for demand in one.demands if demand not in other.demands]
    found += [f"Now graded: {each.in_words()}." for each in other.strategy if each not in one.strategy]
    found += [f"No longer graded: {each.in_words()}." for each in one.strategy if each not in other.strategy]
    if gone := sorted(set(one.special_diseases) - set(other.special_diseases)):
        found.append(f"No longer special diseases: {', '.join(gone)}.")
    if come := sorted(set(other.special_diseases) - set(one.special_diseases)):
        found.append(f"Now special diseases: {', '.join(come)}.")
    if one.retention_days != other.retention_days:
        terms = [
            f"{days} days" if days is not None else "no term" for days in (one.retention_days, other.retention_days)
        ]
        found.append(f"What was made of patients' data may be kept for {terms[1]}, before {terms[0]}.")
    for name in type(one.admission).model_fields:
        before, after = getattr(one.admission, name), getattr(other.admission, name)
        if before != after:
            found.append(f"The admission threshold of {name.replace('_', ' ')} goes from {before:g} to {after:g}.")
    return tuple(found)


_CHOICES: tuple[tuple[str, Mapping[str, str]], ...] = (
    (
        "raw_sharing",
        {
            "allowed": "Raw images and masks may now leave.",
            "forbidden": "Raw images and masks may no longer leave.",
        },
    ),
    (
        "consent",
        {
            "register": "Only subjects whose consent is on file and covers the study are now taken.",
            "release": "The licence of the data's release now stands for consent.",
        },
    ),
    (
        "agreement",
        {
            "required": "A signed and current data-use agreement is now needed.",
            "none": "No data-use agreement is needed any more.",
        },
    ),
    (
        "at_rest",
        {
            "encrypted": "The site's vault must now be encrypted.",
            "plain": "The site's vault may now be plain.",
        },
    ),
    (
        "encrypt_across",
        {
            "always": "What goes to another security domain is now encrypted at any level.",
            "by-level": "What goes to another security domain is now encrypted by its level alone.",
        },
    ),
)


def _closed_from(level: EncryptFrom) -> int:
    return max(get_args(Level)) + 1 if level == "never" else level


def _profiles() -> Any:
    return resources.files("fedprivseg.governance.policy") / "profiles"

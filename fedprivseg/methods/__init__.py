"""Methods: one file each. Adding one is that file and one line in `METHODS`."""

from __future__ import annotations

from fedprivseg.core.config import MethodConfig
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.plugins import Registry
from fedprivseg.core.validation import validated
from fedprivseg.methods.adaptive import FedAdagrad, FedAdam, FedYogi
from fedprivseg.methods.averaging import FedAvg, FedAvgM, FedMedian, FedProx, FedTrimmedAvg
from fedprivseg.methods.byzantine import Bulyan, Krum
from fedprivseg.methods.central_dp import CentralDP
from fedprivseg.methods.coded_federated import CodedFederated
from fedprivseg.methods.ditto import Ditto
from fedprivseg.methods.fedbn import FedBN
from fedprivseg.methods.feddyn import FedDyn
from fedprivseg.methods.fednova import FedNova
from fedprivseg.methods.local_only import LocalOnly
from fedprivseg.methods.method import Method
from fedprivseg.methods.phantom_distillation import PhantomDistillation
from fedprivseg.methods.pooled import Pooled
from fedprivseg.methods.privacy_sf import PrivacySF
from fedprivseg.methods.qfedavg import QFedAvg
from fedprivseg.methods.scaffold import Scaffold
from fedprivseg.methods.selective import SelectiveSharing

METHODS: Registry[type[Method]] = Registry(
    "method",
    Method,
    (
        PrivacySF,
        LocalOnly,
        Pooled,
        FedAvg,
        FedProx,
        FedBN,
        Scaffold,
        FedNova,
        FedDyn,
        Ditto,
        FedAvgM,
        FedAdam,
        FedYogi,
        FedAdagrad,
        QFedAvg,
        FedMedian,
        FedTrimmedAvg,
        Krum,
        Bulyan,
        CentralDP,
        SelectiveSharing,
        PhantomDistillation,
        CodedFederated,
    ),
)

__all__ = ["METHODS", "Method", "resolve"]


def resolve(config: MethodConfig) -> Method:
    """The method that `config` names, with its variant's defaults and the scenario's parameters.

    Raises ScenarioError for an unknown method, variant or parameter, naming the known ones.
    """
    kind = METHODS.find(config.name)
    variant = config.variant or next(iter(kind.variants))
    if variant not in kind.variants:
        raise ScenarioError(
            f"method {kind.name!r} has no variant {variant!r}; its variants are: {', '.join(kind.variants)}"
        )
    parameters = validated(
        kind.parameters_type, {**kind.variants[variant], **config.parameters}, f"method.parameters of {kind.name}"
    )
    return kind(variant, parameters)

"""MLflow: the alias of a registered model follows what is promoted, and what is taken back.

Whoever loads `models:/ranker@champion` gets the treatment's version once it is promoted (or
bakes), and the control's again after a rollback.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import ConfigError
from abkit.integrations.webhook import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.integrations.notices import Notice

_FORWARD: Final = ("promote", "bake")
_BACK: Final = ("rolled_back",)
_LOGIN: Final = re.compile(r"//[^/\s]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """An alias of a registered model.

    Args:
        name: for people, and for files.
        experiment: whose rollouts move it.
        model: name of the registered model.
        alias: such as "champion".
        versions: version of the registered model by variant.
        tracking_uri: of the registry; MLFLOW_TRACKING_URI by default.

    Raises:
        ConfigError: no versions.
    """

    name: str
    experiment: str
    model: str
    alias: str
    versions: Mapping[str, str] = field(default_factory=dict)
    tracking_uri: str = ""

    def __post_init__(self) -> None:
        """Check that there is something to move between."""
        if not self.versions:
            raise ConfigError(
                f"mlflow {self.name!r}: say which version of {self.model!r} each variant is, such "
                'as versions = { teacher = "3", student = "4" }'
            )

    @property
    def host(self) -> str:
        """What is shown of it."""
        return f"models:/{self.model}@{self.alias}"

    def wants(self, notice: Notice) -> bool:
        """Whether this move changes what is promoted."""
        return (
            notice.experiment == self.experiment
            and notice.mode != "dry_run"
            and notice.event in (*_FORWARD, *_BACK)
        )

    def replaces(self, old: Notice, new: Notice) -> bool:
        """A newer move makes an older one that still waits needless, and wrong."""
        return new.follows(old)

    def deliver(self, notice: Notice) -> None:
        """Move the alias.

        Raises:
            DeliveryError: the registry refused, or no version is known.
        """
        variant = notice.treatment if notice.event in _FORWARD else notice.control
        version = self.versions.get(variant)
        if version is None:
            raise DeliveryError(f"notify.toml names no version for the variant {variant!r}")
        client = self._client()
        try:
            client.set_registered_model_alias(self.model, self.alias, version)
        except Exception as error:  # noqa: BLE001 - of whatever backend it has
            text = _LOGIN.sub("//", str(error))  # an address may hold one
            raise DeliveryError(f"MLflow: {type(error).__name__}: {text:.200}") from None

    def _client(self) -> Any:
        try:
            from mlflow import MlflowClient  # noqa: PLC0415 - seconds, and needed here alone
        except ModuleNotFoundError:
            raise DeliveryError("this needs mlflow: pip install mlflow-skinny") from None
        return MlflowClient(tracking_uri=self.tracking_uri or None)

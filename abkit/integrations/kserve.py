"""KServe: `canaryTrafficPercent` of an InferenceService follows the share of a rollout.

The percentage is the share that treatment has; 0 pins the previous revision, which is what a halt
does; and when everything is promoted the field is removed, which makes the new revision the one.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import ConfigError
from abkit.integrations.webhook import DeliveryError

if TYPE_CHECKING:
    from abkit.integrations.notices import Notice

KUBECTL_SECONDS: Final = 30.0
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NOTHING: Final = ("superseded", "advice", "gone", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """An InferenceService whose canary is the treatment.

    Args:
        name: for people, and for files.
        experiment: whose rollouts move it.
        service: name of the InferenceService.
        namespace: where it is.

    Raises:
        ConfigError: a name that Kubernetes would not take.
    """

    name: str
    experiment: str
    service: str
    namespace: str = "default"

    def __post_init__(self) -> None:
        """Check the names: they become arguments of a command."""
        check_kubernetes_name(self.service)
        check_kubernetes_name(self.namespace)

    @property
    def host(self) -> str:
        """What is shown of it."""
        return f"inferenceservice {self.namespace}/{self.service}"

    def wants(self, notice: Notice) -> bool:
        """Whether this move changes who is served."""
        return (
            notice.experiment == self.experiment
            and notice.mode != "dry_run"
            and notice.event not in _NOTHING
        )

    def replaces(self, old: Notice, new: Notice) -> bool:
        """A newer move makes an older one that still waits needless, and wrong."""
        return new.follows(old)

    def deliver(self, notice: Notice) -> None:
        """Apply the patch with kubectl.

        Raises:
            DeliveryError: kubectl is absent, or says no.
        """
        apply(self.service, self.namespace, patch(notice.state, notice.share))


def patch(state: str, share: float) -> dict[str, Any]:
    """A merge patch of an InferenceService.

    Args:
        state: of the rollout.
        share: share of units that treatment answers, in [0, 1].
    """
    percent: int | None
    if state in ("promoted", "superseded"):
        percent = None  # a merge patch removes what is null
    elif state in ("draft", "shadow", "halted", "rolled_back") or share <= 0:
        percent = 0
    else:
        # Whole percents: what is not nothing, and not all, does not become it.
        percent = 100 if share >= 1 else min(99, max(1, round(100 * share)))
    return {"spec": {"predictor": {"canaryTrafficPercent": percent}}}


def command(service: str, namespace: str, change: dict[str, Any]) -> list[str]:
    """The kubectl command that applies a patch."""
    text = json.dumps(change, separators=(",", ":"))
    return [
        *("kubectl", "patch", "inferenceservice", check_kubernetes_name(service)),
        *("--namespace", check_kubernetes_name(namespace), "--type", "merge", "--patch", text),
    ]


def apply(service: str, namespace: str, change: dict[str, Any]) -> str:
    """Run kubectl, as this process may.

    Returns:
        What it said.

    Raises:
        DeliveryError: it is absent, says no, or takes longer than 30 seconds.
    """
    program = shutil.which("kubectl")
    if program is None:
        raise DeliveryError("there is no kubectl on the PATH")
    _, *arguments = command(service, namespace, change)
    try:
        done = subprocess.run(  # noqa: S603 - checked names and JSON of our own, without a shell
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=KUBECTL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeliveryError(f"kubectl: {type(error).__name__}") from None
    if done.returncode:
        raise DeliveryError(f"kubectl: exit code {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stdout.strip()


def check_kubernetes_name(name: str) -> str:
    """The name, if Kubernetes would take it.

    Raises:
        ConfigError: it would not.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigError(f"{name!r} is no name of Kubernetes: a-z, 0-9, - and . alone")
    return name

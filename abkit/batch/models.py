"""A model to score with: a function of a frame, and a hash of all that its answers depend on."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from abkit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

_SPEC: Final = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)\Z")
_MAX_VERSION: Final = 128


@dataclass(frozen=True, slots=True)
class Model:
    """One model.

    Args:
        name: where its function is, `module:function`.
        version: what people call it.
        predict: takes a pandas frame of the features, returns one number a row.
        digest: of name, version, the module's source and its files.
    """

    name: str
    version: str
    predict: Callable[[Any], Any]
    digest: str

    def __call__(self, frame: Any) -> NDArray[np.float64]:
        """One number a row; NaN where there is none.

        Raises:
            DataError: the model failed, or returned something else.
        """
        where = f"model {self.name} {self.version}"
        try:
            found = self.predict(frame)
        except Exception as error:
            raise DataError(f"{where} raised {type(error).__name__}: {error}") from error
        try:
            numbers = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(
                f"{where} must return numbers, got {type(found).__name__}; map classes to numbers"
            ) from None
        if numbers.shape != (len(frame),):
            raise DataError(
                f"{where} returned numbers of shape {numbers.shape} for {len(frame):,} rows; "
                f"return one a row, shape ({len(frame)},)"
            )
        return numbers

    def key(self, columns: dict[str, str]) -> str:
        """What its answers are kept under: the model, and names and types of its features."""
        schema = "\n".join(f"{name}\t{kind}" for name, kind in columns.items())
        return hashlib.sha256(f"{self.digest}\n{schema}".encode()).hexdigest()


def load_model(spec: str, version: str, files: Iterable[Path] = ()) -> Model:
    """A model from `module:function`, found beside the command or on the path.

    Args:
        spec: `module:function`; the function takes a pandas frame of features and returns one
            number a row.
        version: what people call it; another version never shares answers in the cache.
        files: what it reads, such as its weights: their contents are part of its hash.

    Raises:
        ConfigError: there is no such module, function or file.
    """
    match = _SPEC.match(spec)
    if match is None:
        raise ConfigError(f"a model is named as module:function, got {spec!r}")
    if not version or len(version) > _MAX_VERSION or not version.isprintable():
        raise ConfigError(f"model {spec}: its version must be 1 to 128 characters, got {version!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(match[1])
    except ImportError as error:
        raise ConfigError(f"model {spec}: cannot import {match[1]!r}: {error}") from None
    predict = getattr(module, match[2], None)
    if not callable(predict):
        raise ConfigError(f"model {spec}: {match[1]!r} has no function {match[2]!r}")
    digest = hashlib.sha256(f"{spec}\n{version}\n".encode())
    source = getattr(module, "__file__", None)
    for path in [*([] if source is None else [Path(source)]), *files]:
        digest.update(_digest(path, spec))
    return Model(spec, version, predict, digest.hexdigest())


def _digest(path: Path, spec: str) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ConfigError(f"model {spec}: cannot read {path}: {error.strerror}") from None
    return digest.digest()

"""The one way from a user's opaque parameters to a config that may be acted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_api.decoding import read_config
from nvdra_api.errors import ConfigError
from nvdra_api.normalisation import normalise
from nvdra_api.validation import validate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_api.configs import OpaqueConfig
    from nvdra_api.gates import FeatureGates


def load_config(raw: bytes | str | Mapping[str, Any], gates: FeatureGates) -> OpaqueConfig:
    """Decode strictly, fill in defaults, validate.

    :raises ConfigError: one error that names every problem.
    """
    given, problems = read_config(raw)
    config = normalise(given, gates)
    problems += validate(config, gates)
    if problems:
        raise ConfigError(problems)
    return config

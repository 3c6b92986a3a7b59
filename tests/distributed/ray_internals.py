"""What tests use of Ray's internals. test_ray_private.py says when they have changed."""

from __future__ import annotations

from typing import Any

from ray._private.internal_api import get_memory_info_reply
from ray._private.state import state
from ray.autoscaler._private.util import prepare_config, validate_config

__all__ = ["object_store_mb", "validated"]


def object_store_mb() -> float:
    """MB of shared memory that objects take; `ray memory` shows it, but only with a dashboard."""
    return float(get_memory_info_reply(state).store_stats.object_store_bytes_used) / 1e6


def validated(cluster: dict[str, Any]) -> dict[str, Any]:
    """A cluster.yaml as `ray up` understands it; raises where `ray up` refuses it before it asks the cloud."""
    prepared = prepare_config(cluster)
    validate_config(prepared)
    return dict(prepared)

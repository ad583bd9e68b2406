"""The nodes of a Ray cluster: which of them are lost or about to go, and actors that stay on the driver's."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

_NODE_ANSWERS_S = 60.0
"""A node that says nothing for so long is gone; Ray itself notices within half of it."""


def own_node() -> str:
    """Return the hexadecimal id of the node that this process is on."""
    import ray

    return ray.get_runtime_context().get_node_id()


def gone_nodes(nodes: Collection[str]) -> set[str]:
    """Return those of the nodes, by hexadecimal id, that are dead or draining, asking each for an answer.

    A worker's death is known at once; that its node died, Ray may notice half a minute later.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote: Any = ray.remote
    answers = {}
    leaving = leaving_nodes()
    for node in set(nodes) - leaving - {own_node()}:
        where = NodeAffinitySchedulingStrategy(node, soft=False)
        answers[remote(num_cpus=0, max_retries=0, scheduling_strategy=where)(_answer).remote()] = node
    gone = set(nodes) & leaving
    deadline = time.monotonic() + _NODE_ANSWERS_S
    for answer, node in answers.items():
        try:
            ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))
        except ray.exceptions.RayError:
            ray.cancel(answer, force=True)
            gone.add(node)
    return gone


def _answer() -> None:
    """What a node that is asked does."""


def leaving_nodes() -> set[str]:
    """Return the nodes, by hexadecimal id, that have been announced to go: `ray drain-node`, or a cloud's notice."""
    import ray._private.state

    # Ray has no public name for it.
    return set(ray._private.state.state.get_draining_nodes())


def beside_the_driver(kind: type, *arguments: Any, cluster_name: str = "", is_replaceable: bool = False) -> Any:
    """Start an actor on the driver's node, so that it lives as long as the driver, whichever other node dies.

    With ``cluster_name``, all drivers of the cluster get the same one, which outlives them. One ``is_replaceable`` that
    dies is started anew, without what it knew: Ray's memory monitor ends any process, not only those that take memory.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(own_node(), soft=bool(cluster_name))
    options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
    if is_replaceable:
        options |= {"max_restarts": -1, "max_task_retries": -1}
    if cluster_name:
        options |= {
            "name": cluster_name, "namespace": "vidal", "get_if_exists": True, "lifetime": "detached",
            "max_restarts": -1,
        }  # fmt: skip
    remote: Any = ray.remote
    return remote(**options)(kind).remote(*arguments)

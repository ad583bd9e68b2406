"""`Cluster`: the machines of an estimate, from a YAML file or in short as ``10xcpu16,2xgpu1``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vidal.errors import UserError
from vidal.settings import read_yaml, validate

_SHORT = re.compile(r"(\d+)x(cpu|gpu)(\d+)")
_CPUS_PER_GPU = 8


class NodeKind(BaseModel):
    """Machines that are alike."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(min_length=1)
    """Name in the estimate."""
    count: int = Field(1, ge=0)
    """Number of machines."""
    cpus: int = Field(ge=1)
    """Cores of a machine."""
    gpus: int = Field(0, ge=0)
    """GPUs of a machine."""
    memory_gb: float | None = Field(None, gt=0)
    """Memory of a machine, in GB; none: not checked."""
    speed: float = Field(1.0, gt=0)
    """Speed of a worker relative to those that were profiled."""
    price_per_h: float = Field(0.0, ge=0)
    """Price of a machine per hour, in any currency."""
    failures_per_h: float = Field(0.0, ge=0)
    """How often a machine is lost, such as a spot instance."""
    recover_s: float = Field(300.0, ge=0)
    """Seconds until a lost machine is replaced."""
    gbit_s: float = Field(10.0, gt=0)
    """Network of a machine."""


class Store(BaseModel):
    """Where the dataset is written to."""

    model_config = ConfigDict(extra="forbid")

    gbit_s: float | None = Field(None, gt=0)
    """What the store takes from all machines together; none: no limit."""
    price_per_gb_month: float = Field(0.0, ge=0)
    """Price of storage."""


class Cluster(BaseModel):
    """The machines and the store of a build."""

    model_config = ConfigDict(extra="forbid")

    nodes: list[NodeKind] = Field(min_length=1)
    store: Store = Store()

    @model_validator(mode="after")
    def _check(self) -> Self:
        kinds = [node.kind for node in self.nodes]
        if len(set(kinds)) < len(kinds):
            raise ValueError("two entries of `nodes` have the same `kind`")
        if not self.cpus:
            raise ValueError("`nodes` has no machine with a `count` above 0")
        return self

    @classmethod
    def parse(cls, spec: str) -> Cluster:
        """Return the cluster of a YAML file, or of ``NxcpuC`` and ``NxgpuG`` parts joined by commas.

        ``10xcpu16`` is ten machines with 16 cores; ``2xgpu4`` two with four GPUs, and eight cores for each GPU. Raises
        `UserError`.
        """
        if Path(spec).suffix in (".yaml", ".yml"):
            return validate(cls, read_yaml(Path(spec), "`nodes` and `store`"), spec)
        nodes = []
        for part in spec.split(","):
            if (match := _SHORT.fullmatch(part.strip())) is None or not int(match[3]):
                raise UserError(
                    f"--cluster {spec}: `{part}` is no NxcpuC or NxgpuG, such as 10xcpu16,2xgpu1; or name a .yaml file"
                )
            count, kind, size = int(match[1]), f"{match[2]}{match[3]}", int(match[3])
            shape = {"cpus": size} if match[2] == "cpu" else {"cpus": _CPUS_PER_GPU * size, "gpus": size}
            nodes.append({"kind": kind, "count": count, **shape})
        return validate(cls, {"nodes": nodes}, f"--cluster {spec}")

    @property
    def cpus(self) -> int:
        """Cores of all machines."""
        return sum(node.count * node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        """GPUs of all machines."""
        return sum(node.count * node.gpus for node in self.nodes)

    @property
    def price_per_h(self) -> float:
        """Price of all machines per hour."""
        return sum(node.count * node.price_per_h for node in self.nodes)

    def machines(self) -> list[NodeKind]:
        """Return the kind of each machine."""
        return [node for node in self.nodes for _ in range(node.count)]

    def with_one_more(self, kind: str) -> Cluster:
        """Return the cluster with one machine more of a kind."""
        more = [node.model_copy(update={"count": node.count + (node.kind == kind)}) for node in self.nodes]
        return self.model_copy(update={"nodes": more})

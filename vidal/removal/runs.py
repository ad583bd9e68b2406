"""`Trained`: the checkpoints of a training run that were trained on data with a removed clip in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training run and its checkpoints have seen of the removed clips; nothing is said of other runs."""

    run: str
    data: list[dict[str, Any]]
    """Address, fingerprint and number of samples of each dataset, and its revision where it is one of the removal's."""
    where: str | None
    clip_ids: list[str]
    """The clips that it was trained on."""
    held_out: list[str]
    """The clips that were held out, which it was at most evaluated on."""
    checkpoints: list[int]
    """Steps of each checkpoint that is there."""
    init_from: str | None = None
    """The run or weights that it started from, whose own data are not known here."""

    def lines(self) -> Iterator[str]:
        if self.clip_ids:
            steps = ", ".join(map(str, self.checkpoints)) or "none is there"
            yield f"  {self.run}: its data contained {', '.join(self.clip_ids)}; checkpoints after steps: {steps}"
        elif self.held_out:
            yield f"  {self.run}: held out {', '.join(self.held_out)}, and did not train on it"
        else:
            yield f"  {self.run}: its data contained none of them"
        if self.init_from:
            yield f"  {self.run}: started from {self.init_from}; name that run with --also to know what it has seen"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class RunRecord:
    """What a training run recorded, read before anything is removed.

    Raises `OutputError` if it cannot say which clips it trained on.
    """

    def __init__(self, address: str, revisions: Mapping[str, int]) -> None:
        # Here, as both import torch, which a removal without runs does not need.
        from vidal.train.checkpoint import Checkpoints
        from vidal.train.run_folder import RunFolder

        folder = RunFolder(address)
        self._address, self._info, self._split = address, folder.read(), folder.split()
        self._steps = Checkpoints(folder.address).steps()
        self._revisions = revisions

    def trained_on(self, clip_ids: frozenset[str]) -> Trained:
        """Return what the run has seen of some clips."""
        split = {clip_id: self._split[clip_id] for clip_id in sorted(clip_ids & self._split.keys())}
        data = [{**one, "revision": self._revisions.get(one["fingerprint"])} for one in self._info.data]
        return Trained(
            run=self._address, data=data, where=self._info.where, checkpoints=self._steps,
            init_from=self._info.recipe.get("init_from"),
            clip_ids=[clip_id for clip_id, is_held_out in split.items() if not is_held_out],
            held_out=[clip_id for clip_id, is_held_out in split.items() if is_held_out],
        )  # fmt: skip

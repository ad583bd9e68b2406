"""Slabs: the tensors of a batch in one block of memory, shared with forked processes and copied at once."""

from __future__ import annotations

import os

import torch

from vidal.train.data.slabs import Copy, Field, Layout, allocate

LAYOUT = Layout({
    "valid": Field(torch.bool, (3,)), "ids": Field(torch.int64, (3, 5)), "video": Field(torch.uint8, (3, 7)),
    "depth": Field(torch.int16, (3, 2, 2)), "audio": Field(torch.float32, (3, 1)),
})  # fmt: skip


def test_tensors_of_any_type_lie_beside_each_other():
    (slab,) = allocate(1, LAYOUT.size)
    views = LAYOUT.views(slab)
    made = {name: torch.randint(0, 2, view.shape).to(view.dtype) for name, view in views.items()}
    for name, values in made.items():
        views[name].copy_(values)
    for name, view in LAYOUT.views(slab.clone()).items():
        assert view.dtype == made[name].dtype and torch.equal(view, made[name])
    assert all(view.data_ptr() % 64 == slab.data_ptr() % 64 for view in views.values())


def test_a_forked_process_writes_what_its_parent_reads():
    slabs = allocate(2, LAYOUT.size)
    child = os.fork()
    if not child:
        # No torch after a fork of a process that may run threads, but for what a worker does.
        LAYOUT.views(slabs[1])["depth"].fill_(-7)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not slabs[0].any() and bool((LAYOUT.views(slabs[1])["depth"] == -7).all())


def test_a_copy_is_independent_of_its_slab():
    (slab,) = allocate(1, 2 * LAYOUT.size)
    copy = Copy(slab.fill_(1), LAYOUT.size, torch.device("cpu"), None)
    slab.fill_(2)
    copy.wait()
    assert copy.result().tolist() == [1] * LAYOUT.size

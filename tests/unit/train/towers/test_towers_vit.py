"""`VisionTower`: shapes, temporal attention, patch dropout, checkpointing, compilation, precision."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vidal.errors import RecipeError
from vidal.train.towers.settings import VisionSettings
from vidal.train.towers.start import tower_from
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import fit_frames, fit_positions

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 4,
    "patch_size": 8,
    "image_size": 32,
    "projection_dim": 12,
}


def tower(**settings: Any) -> VisionTower:
    torch.manual_seed(0)
    return VisionTower(VisionSettings(**(SMALL | settings)))


def pixels(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


CASES: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    ({}, (2, 3, 32, 32)),
    ({}, (2, 3, 5, 32, 32)),
    ({"image_size": (24, 56)}, (2, 3, 24, 56)),
    ({"image_size": (30, 61)}, (2, 3, 30, 61)),
    ({"channels": 1}, (2, 1, 32, 32)),
    ({"frames": 4, "temporal": True}, (2, 3, 4, 32, 32)),
    ({"frames": 4, "temporal": True}, (2, 3, 2, 32, 32)),
    ({"frames": 4, "temporal": True}, (2, 3, 32, 32)),
    ({"frames": 4, "temporal": True, "class_embedding_per_frame": True}, (2, 3, 4, 32, 32)),
    ({"pre_norm": False, "patch_bias": True, "activation": "quick_gelu"}, (2, 3, 32, 32)),
]


@pytest.mark.parametrize(("settings", "shape"), CASES)
def test_an_embedding_per_clip(settings: dict[str, Any], shape: tuple[int, ...]) -> None:
    embedding = tower(**settings)(pixels(*shape))
    assert embedding.shape == (2, 12)
    assert embedding.dtype == torch.float32
    assert torch.isfinite(embedding).all()


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        ({}, (2, 3, 32, 40), r"\(2, 3, 1, 32, 40\): this tower takes \(b, 3, 32, 32\)"),
        ({}, (2, 1, 32, 32), "takes"),
        ({"frames": 4, "temporal": True}, (2, 3, 5, 32, 32), "5 frames: this tower takes at most 4"),
    ],
)
def test_pixels_that_do_not_fit_are_one_clear_line(settings: dict[str, Any], shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        tower(**settings)(pixels(*shape))


def test_identity_start_is_the_base_model_and_copy_is_not() -> None:
    base = tower().double().eval()
    clip = pixels(2, 3, 4, 32, 32).double()
    gaps = {}
    for start in ("identity", "copy"):
        video = tower(frames=4, temporal=True, temporal_init=start).double().eval()
        video.load_state_dict(video.state_dict() | base.state_dict())
        video.start_temporal()
        gaps[start] = (video(clip) - base(clip)).abs().max().item()
    assert gaps["identity"] == 0
    assert gaps["copy"] > 1e-3


def test_an_identity_start_still_learns() -> None:
    video = tower(frames=4, temporal=True, temporal_init="identity")
    video(pixels(2, 3, 4, 32, 32)).square().sum().backward()
    grads = {
        n: p.grad.abs().max().item() for n, p in video.named_parameters() if p.grad is not None and ".temporal_" in n
    }
    assert grads["encoder.layers.0.temporal_attn.out_proj.weight"] > 0
    assert grads["encoder.layers.0.temporal_embedding"] > 0


def test_copy_takes_spatial_attention_and_its_norm() -> None:
    video = tower(frames=4, temporal=True)
    state = video.state_dict()
    for name, tensor in state.items():
        if ".temporal_attn." in name or ".temporal_layer_norm1." in name:
            twin = name.replace("temporal_attn", "self_attn").replace("temporal_layer_norm1", "layer_norm1")
            assert torch.equal(tensor, state[twin]), name
    spread = torch.cat([state[f"encoder.layers.{i}.temporal_embedding"].flatten() for i in range(2)]).std()
    assert spread.item() == pytest.approx(32**-0.5, rel=0.2)


@pytest.mark.parametrize(("p", "kept"), [(0.5, 8), (0.3, 11), (0.99, 1)])
def test_a_mask_is_drawn_in_training_only_and_from_the_generator(p: float, kept: int) -> None:
    one = tower(patch_dropout=p)
    draws = [one.draw_keep(3, "cpu", torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert draws[0] is not None and draws[1] is not None and draws[2] is not None
    assert draws[0].shape == (3, kept)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert all(len(set(row)) == kept and set(row) <= set(range(16)) for row in draws[0].tolist())
    assert one.eval().draw_keep(3, "cpu", None) is None
    assert tower().draw_keep(3, "cpu", None) is None


def test_patches_that_are_left_out_of_a_clip_count_in_no_frame_and_the_class_token_always() -> None:
    video = tower(frames=4, temporal=True).eval()
    clip = pixels(1, 3, 4, 32, 32)
    keep = torch.tensor([[0, 5, 9, 15]])
    changed = clip.clone()
    for patch in set(range(16)) - set(keep[0].tolist()):
        row, column = divmod(patch, 4)
        changed[..., row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 7.0
    with torch.no_grad():
        torch.testing.assert_close(video(changed, keep), video(clip, keep), rtol=0, atol=0)
        torch.testing.assert_close(video(clip, keep[:, [2, 0, 3, 1]]), video(clip, keep), rtol=0, atol=1e-6)
        assert (video(clip, keep) - video(clip)).abs().max() > 1e-3
        everything = torch.arange(16)[None]
        torch.testing.assert_close(video(clip, everything), video(clip), rtol=0, atol=1e-6)


def test_checkpointing_changes_no_gradient() -> None:
    clip, keep = pixels(2, 3, 4, 32, 32), torch.tensor([[0, 1, 2], [7, 8, 9]])
    grads = []
    for checkpointing in (False, True):
        one = tower(frames=4, temporal=True, gradient_checkpointing=checkpointing)
        one(clip, keep).square().sum().backward()
        grads.append({n: p.grad for n, p in one.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        assert torch.equal(grad, grads[1][name]), name


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("settings", [{}, {"frames": 4, "temporal": True}])
def test_forward_compiles_without_a_graph_break(settings: dict[str, Any], checkpointing: bool) -> None:
    one = tower(gradient_checkpointing=checkpointing, **settings)
    clip = pixels(2, 3, *([4] if settings else []), 32, 32)
    keep = torch.tensor([[0, 1, 2], [7, 8, 9]])
    torch._dynamo.reset()
    compiled = torch.compile(one, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(clip, keep), one(clip, keep), rtol=0, atol=1e-6)


def test_bfloat16_autocast_gives_float32_near_the_exact_embedding() -> None:
    one = tower(frames=4, temporal=True).eval()
    clip = pixels(2, 3, 4, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = one(clip)
    assert half.dtype == torch.float32
    exact = one(clip)
    assert (half - exact).norm() / exact.norm() < 0.02


def test_a_position_table_for_the_grid_is_taken_as_it_is_and_another_is_resized() -> None:
    name = "embeddings.position_embedding.weight"
    square = VisionSettings(**SMALL)
    table = pixels(17, 32)
    assert fit_positions({name: table}, (4, 4), square)[name] is table
    assert fit_positions({name: table}, (2, 8), None)[name] is table
    assert fit_positions({name: table}, (2, 8), square)[name].shape == (17, 32)
    wide = fit_positions({name: table}, (3, 7), square)[name]
    assert wide.shape == (22, 32)
    assert torch.equal(wide[0], table[0])


def test_temporal_embeddings_stretch_to_another_number_of_frames() -> None:
    name = "encoder.layers.0.temporal_embedding"
    ramp = torch.arange(4.0)[None, :, None].expand(1, 4, 2)
    stretched = fit_frames({name: ramp, "embeddings.class_embedding": ramp[0, 0]}, 8)
    assert stretched[name].shape == (1, 8, 2)
    assert torch.equal(stretched["embeddings.class_embedding"], ramp[0, 0])
    assert (stretched[name][0, 1:, 0] >= stretched[name][0, :-1, 0]).all()


def test_sizes_alone_are_a_start() -> None:
    torch.manual_seed(3)
    one = tower_from(VisionSettings(**SMALL))
    torch.manual_seed(3)
    two = tower_from(VisionSettings(**SMALL))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))

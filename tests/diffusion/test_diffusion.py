import pytest
import torch

from dreambooth3d.diffusion.noise import draw_noise, draw_sigma, keyed_generator
from dreambooth3d.diffusion.path import interpolate, shift_sigma, velocity_loss, velocity_target
from dreambooth3d.diffusion.sampler import euler, flow_sigmas, guide, guide_by_both
from dreambooth3d.errors import ConfigError


def test_path_runs_from_data_to_noise_at_the_target_velocity() -> None:
    x0, noise = torch.randn(2, 3, 1, 4, 4), torch.randn(2, 3, 1, 4, 4)
    assert torch.equal(interpolate(x0, noise, torch.zeros(2)), x0)
    assert torch.equal(interpolate(x0, noise, torch.ones(2)), noise)
    step = interpolate(x0, noise, torch.full((2,), 0.3)) - interpolate(
        x0, noise, torch.full((2,), 0.2)
    )
    torch.testing.assert_close(step, 0.1 * velocity_target(x0, noise), atol=1e-6, rtol=1e-4)
    assert torch.equal(velocity_loss(noise - x0, x0, noise), torch.zeros(2))


def test_shift_follows_the_paper() -> None:
    sigma = torch.tensor([0.0, 0.25, 0.5, 1.0])
    torch.testing.assert_close(shift_sigma(sigma, 3.0), torch.tensor([0.0, 0.5, 0.75, 1.0]))
    assert torch.equal(shift_sigma(sigma, 1.0), sigma)


def test_draws_depend_on_their_name_alone() -> None:
    a = draw_noise((4,), keyed_generator("train", 0, 17))
    torch.randn(1000)
    assert torch.equal(a, draw_noise((4,), keyed_generator("train", 0, 17)))
    assert not torch.equal(a, draw_noise((4,), keyed_generator("train", 0, 18)))
    assert not torch.equal(a, draw_noise((4,), keyed_generator("train", 1, 17)))


def test_training_noise_levels_have_the_published_distribution() -> None:
    generator = keyed_generator("sigmas")
    levels = torch.stack([draw_sigma(generator, shift=3.0) for _ in range(4000)])
    # The median of sigmoid(N(0, 1)) is 1/2; shifted by 3 it is 3/4.
    assert abs(levels.median().item() - 0.75) < 0.02
    assert 0 < levels.min() < levels.max() < 1


def test_flow_sigmas_match_diffusers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    ours = flow_sigmas(10, 5.0)
    scheduler.set_timesteps(sigmas=ours[:-1].tolist())
    torch.testing.assert_close(scheduler.sigmas, ours)


def test_euler_recovers_data_exactly_on_a_straight_path() -> None:
    x0, noise = torch.randn(2, 4, 1, 2, 2), torch.randn(2, 4, 1, 2, 2)
    found = euler(lambda x, s: noise - x0, noise, flow_sigmas(7, 3.0))
    torch.testing.assert_close(found, x0, atol=1e-5, rtol=1e-5)


def test_euler_stops_when_told() -> None:
    seen: list[int] = []

    def on_step(step: int, x: torch.Tensor) -> bool:
        seen.append(step)
        return step == 3

    euler(lambda x, s: x, torch.ones(1, 1), flow_sigmas(10, 1.0), on_step=on_step)
    assert seen == [1, 2, 3]


def test_guidance() -> None:
    c, u = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    assert guide(c, u, 1.0).item() == 2
    assert guide(c, u, 4.0).item() == 5
    assert guide(c, u, 0.0).item() == 1


def test_bad_schedules_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_steps must be at least 1, got 0"):
        flow_sigmas(0, 1.0)
    with pytest.raises(ConfigError, match="shift must be positive"):
        flow_sigmas(4, 0.0)


def test_guidance_by_both_is_plain_guidance_where_the_scales_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    full, without_text, without_both = torch.randn(3, 2, 4, generator=generator)
    same = guide_by_both(full, without_text, without_both, text=1, reference=1)
    torch.testing.assert_close(same, full)
    both = guide_by_both(full, without_text, without_both, text=4, reference=4)
    torch.testing.assert_close(both, guide(full, without_both, 4))
    text_only = guide_by_both(full, without_text, without_both, text=3, reference=1)
    torch.testing.assert_close(text_only, guide(full, without_text, 3))

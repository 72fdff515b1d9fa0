import torch

from dreambooth3d.backbone.components import build_vae
from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.vae import batched


@torch.no_grad()
def test_batches_give_the_results_of_single_samples(config: BackboneTrainConfig) -> None:
    torch.manual_seed(0)
    vae = build_vae(config)
    for num_frames in (1, 5):
        pixels = torch.randn(3, 3, num_frames, 16, 16)
        alone = [vae.encode(row[None]).latent_dist.mode() for row in pixels]
        decoded = torch.cat([vae.decode(latent).sample for latent in alone])
        with batched(vae):
            latents = vae.encode(pixels).latent_dist.mode()
            together = vae.decode(latents).sample
        torch.testing.assert_close(latents, torch.cat(alone), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(together, decoded, atol=1e-4, rtol=1e-4)


def test_the_vae_is_left_as_it_was(config: BackboneTrainConfig) -> None:
    vae = build_vae(config)
    before = {name: set(module.__dict__) for name, module in vae.named_modules()}
    with batched(vae):
        pass
    assert {name: set(module.__dict__) for name, module in vae.named_modules()} == before

"""Complete typed runs: pick one with --recipe, change single settings with --set."""

from dataclasses import dataclass, replace

from dreambooth3d.errors import ConfigError
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.pretrain.config import PretrainConfig

_HUB_480P = "hunyuanvideo-community/HunyuanVideo-1.5-480p_t2v"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of every stage of one journey."""

    summary: str
    pairs: PairsConfig
    pretrain: PretrainConfig
    personalize: PersonalizeConfig
    generate: GenerateConfig


_TINY_SUBJECTS = PersonalizeConfig(
    steps=150, batch_size=2, lr=1e-3, warmup_steps=10, schedule="cosine"
)
_TINY_CLIPS = GenerateConfig(steps=20, guidance_scale=4.0, guided_above=0.75)

RECIPES = {
    "tiny": Recipe(
        summary="embedded backbone on a laptop CPU, minutes (default)",
        pairs=PairsConfig(samples=1536, held_out_share=0.05),
        pretrain=PretrainConfig(
            steps=400, batch_size=16, lr=1e-3, warmup_steps=20, schedule="cosine", sigma_shift=3.0
        ),
        personalize=_TINY_SUBJECTS,
        generate=_TINY_CLIPS,
    ),
    "demo": Recipe(
        summary="tiny, shorter: what `make demo` runs",
        pairs=PairsConfig(samples=1024),
        pretrain=PretrainConfig(
            steps=320,
            batch_size=16,
            lr=1e-3,
            warmup_steps=20,
            schedule="cosine",
            save_every=80,
            is_validated=False,
        ),
        personalize=replace(_TINY_SUBJECTS, steps=120),
        generate=_TINY_CLIPS,
    ),
    "packaged": Recipe(
        summary="what the packaged 3Dapter of `tiny` was made with: 40 minutes on two cores",
        pairs=PairsConfig(
            samples=14_336,
            pairs_per_subject=1,
            samples_per_shard=512,
            encode="tiny",
            encode_precision="bf16",
        ),
        pretrain=PretrainConfig(
            strategy="single",
            steps=3600,
            batch_size=32,
            rank=64,
            is_validated=False,
            lr=1.5e-3,
            warmup_steps=20,
            schedule="cosine",
            precision="bf16",
        ),
        personalize=_TINY_SUBJECTS,
        generate=_TINY_CLIPS,
    ),
    "one-gpu": Recipe(
        summary="HunyuanVideo-1.5 480p on one 80 GB GPU (planned, not run on a GPU here)",
        pairs=PairsConfig(samples=100_000, size=512, samples_per_shard=500),
        pretrain=PretrainConfig(
            backbone=_HUB_480P,
            device="gpu",
            precision="bf16",
            is_checkpointed=True,
            batch_size=32,
        ),
        personalize=PersonalizeConfig(backbone=_HUB_480P, precision="bf16"),
        generate=GenerateConfig(
            backbone=_HUB_480P, steps=50, guidance_scale=6.0, num_frames=81, fps=24
        ),
    ),
    "cluster": Recipe(
        summary="the same on eight GPUs: ZeRO-2 over workers (planned; not run on a GPU here)",
        # Nodes come with the work, so the cores at the start say nothing.
        pairs=PairsConfig(samples=1_000_000, size=512, samples_per_shard=1000, workers=256),
        pretrain=PretrainConfig(
            backbone=_HUB_480P,
            device="gpu",
            precision="bf16",
            is_checkpointed=True,
            workers=8,
            strategy="zero2",
            batch_size=32,
        ),
        personalize=PersonalizeConfig(backbone=_HUB_480P, precision="bf16", tries=3),
        generate=GenerateConfig(
            backbone=_HUB_480P, steps=50, guidance_scale=6.0, num_frames=81, fps=24
        ),
    ),
}


def find_recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}; choose one")
    return RECIPES[name]

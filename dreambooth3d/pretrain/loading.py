"""What a rank of the training holds: the backbone, as little of it as it needs, and the pairs."""

from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.model.backbone import Denoiser, read_card
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.pretrain import TRAINED_ON, PairExamples, has_latents, training_side
from dreambooth3d.runtime.backbones import dtype_of, pick_device, warm_denoiser, warm_encoders
from dreambooth3d.training.sharded import load_sharded


def load_inputs(config: PretrainConfig, place: Place) -> tuple[Denoiser, PairExamples]:
    """Load what this training needs of the backbone: no encoders where the corpus has latents."""
    corpus, card = PairCorpus.open(place, split=TRAINED_ON), read_card(config.backbone)
    side = training_side(config, card)
    if has_latents(config, corpus, card):
        return _load_denoiser(config), PairExamples(corpus, None, side)
    encoders = warm_encoders(config.backbone, config.precision)
    return _load_denoiser(config), PairExamples(corpus, encoders, side)


def _load_denoiser(config: PretrainConfig) -> Denoiser:
    """Load the transformer, under `zero3` this rank's share of it and never more."""
    if config.strategy != "zero3":
        return warm_denoiser(config.backbone, config.precision)
    dtype = dtype_of(config.precision)
    return load_sharded(config.backbone, dtype=dtype, device=pick_device())

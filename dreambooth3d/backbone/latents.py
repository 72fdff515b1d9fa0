"""Training samples of the transformer: latents on disk, captions encoded once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreambooth3d.backbone.components import Components
from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.pool import KINDS, Kind, Pool
from dreambooth3d.model.prompts import HIDDEN_STATE, SYSTEM_MESSAGE
from dreambooth3d.model.texts import TextStates

_SHORT_CLIPS = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Shelf:
    """Samples of one kind, grouped by prompt length so that no batch carries padding.

    Attributes:
        latents: unscaled, (N, C, T, H, W) float16.
        texts: encoded caption variants, (P, S, D) float16 for each length S.
        rows: the sample each of the P variants belongs to.
    """

    latents: NDArray[np.float16]
    texts: dict[int, Tensor]
    rows: dict[int, NDArray[np.int64]]

    def lengths(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Prompt lengths and the share of captions that have each."""
        counts = np.array([len(rows) for rows in self.rows.values()], np.float64)
        return np.array(list(self.rows), np.int64), counts / counts.sum()


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One update's data: scaled latents, one prompt a row, noise and its level."""

    kind: Kind
    latents_BCTHW: Tensor
    texts: tuple[TextStates, ...]
    noise_BCTHW: Tensor
    sigma_B: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentPool:
    """All samples, and the empty prompt."""

    shelves: dict[Kind, Shelf]
    empty: TextStates
    scaling_factor: float

    def batch(self, config: BackboneTrainConfig, step: int) -> Batch:
        """Draw the batch of one step: the same for every run with this configuration."""
        rng = np.random.default_rng((config.seed, 2, step))
        kind = _draw_kind(config, rng)
        shelf = self.shelves[kind]
        lengths, shares = shelf.lengths()
        length = int(rng.choice(lengths, p=shares))
        num_frames = shelf.latents.shape[2]
        if kind == "clip" and rng.random() < _SHORT_CLIPS:
            num_frames = num_frames // 2 + 1
        tokens = num_frames * config.frame_tokens
        picks = rng.integers(len(shelf.rows[length]), size=config.batch_tokens // tokens)
        latents = shelf.latents[shelf.rows[length][picks], :, :num_frames].astype(np.float32)
        if rng.random() < config.text_dropout:
            texts = [self.empty] * len(picks)
        else:
            texts = [TextStates(states_SD=t) for t in shelf.texts[length][picks].float()]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        x0 = torch.from_numpy(latents) * self.scaling_factor
        sigma = torch.randn(len(picks), generator=generator).sigmoid()
        return Batch(
            kind=kind,
            latents_BCTHW=x0,
            texts=tuple(texts),
            noise_BCTHW=torch.randn(x0.shape, generator=generator),
            sigma_B=sigma * config.time_shift / (1 + (config.time_shift - 1) * sigma),
        )


def _draw_kind(config: BackboneTrainConfig, rng: np.random.Generator) -> Kind:
    value = rng.random()
    if value < config.clip_fraction:
        return "clip"
    return "reference" if value < config.clip_fraction + config.reference_fraction else "image"


def encode_pool(
    pool: Pool,
    folder: Path,
    encode: Callable[[Any], NDArray[np.float16]],
    *,
    parent: str,
    on_chunk: Callable[[int, int], None],
) -> dict[Kind, NDArray[np.float16]]:
    """Encode every chunk once; a file belongs to a chunk's content and a `parent`, the VAE."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {chunk.name: folder / f"{chunk.name}-{parent[:16]}.npy" for chunk in pool.chunks}
    for old in set(folder.glob("*.npy")) - set(paths.values()):
        old.unlink()
    for done, chunk in enumerate(pool.chunks, start=1):
        path = paths[chunk.name]
        if not path.is_file():
            aside = folder / f".{path.name}"
            np.save(aside, encode(chunk))
            aside.replace(path)
            on_chunk(done, len(pool.chunks))
    return {
        kind: np.concatenate([np.load(paths[c.name]) for c in pool.of_kind(kind)]) for kind in KINDS
    }


def scaling_factor(latents: dict[Kind, NDArray[np.float16]]) -> float:
    """1 / root mean square of the latents, each kind counted alike."""
    squares = [float(np.square(part.astype(np.float32)).mean()) for part in latents.values()]
    return float(1 / np.sqrt(np.mean(squares)))


def build_latent_pool(
    pool: Pool, latents: dict[Kind, NDArray[np.float16]], parts: Components, factor: float
) -> LatentPool:
    """Encode every caption and put latents and prompts together."""
    shelves: dict[Kind, Shelf] = {}
    for kind in KINDS:
        captions = [variants for chunk in pool.of_kind(kind) for variants in chunk.captions]
        shelves[kind] = _shelve(latents[kind], captions, parts)
    (empty,) = encode_captions(parts, [""])
    return LatentPool(
        shelves=shelves, empty=TextStates(states_SD=empty.float()), scaling_factor=factor
    )


def _shelve(
    latents: NDArray[np.float16], captions: Sequence[tuple[str, ...]], parts: Components
) -> Shelf:
    flat = [caption for variants in captions for caption in variants]
    rows = [row for row, variants in enumerate(captions) for _ in variants]
    unique = list(dict.fromkeys(flat))
    states = dict(zip(unique, encode_captions(parts, unique), strict=True))
    groups: dict[int, list[int]] = {}
    for position, caption in enumerate(flat):
        groups.setdefault(len(states[caption]), []).append(position)
    return Shelf(
        latents=latents,
        texts={n: torch.stack([states[flat[p]] for p in at]) for n, at in groups.items()},
        rows={n: np.array([rows[p] for p in at], np.int64) for n, at in groups.items()},
    )


@torch.no_grad()
def encode_captions(
    parts: Components, captions: Sequence[str], *, batch: int = 128
) -> list[Tensor]:
    """Encode many prompts as `PromptEncoder` does one, each (S, D) float16."""
    states: list[Tensor] = []
    start = _user_start(parts.tokenizer)
    for first in range(0, len(captions), batch):
        inputs = parts.tokenizer.apply_chat_template(
            [_conversation(caption) for caption in captions[first : first + batch]],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        hidden = parts.text_encoder(**inputs, output_hidden_states=True, use_cache=False)
        kept = hidden.hidden_states[HIDDEN_STATE][:, start:]
        mask = inputs["attention_mask"][:, start:].bool()
        states += [row[valid].half() for row, valid in zip(kept, mask, strict=True)]
    return states


def _conversation(text: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": SYSTEM_MESSAGE},
        {"role": "user", "content": text or " "},
    ]


def _user_start(tokenizer: Any) -> int:
    """Tokens before the user's text: where two prompts first differ."""
    one, other = (
        tokenizer.apply_chat_template(_conversation(text), tokenize=True, return_dict=True)
        for text in ("a", "b")
    )
    pairs = zip(one["input_ids"], other["input_ids"], strict=True)
    return next(index for index, (a, b) in enumerate(pairs) if a != b)

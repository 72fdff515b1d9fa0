import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dreambooth3d.errors import ConfigError
from dreambooth3d.model.forward import denoise, encode_references
from dreambooth3d.model.lora import LoraAdapter, RowLoras
from dreambooth3d.model.routing import Routes
from dreambooth3d.model.texts import TextStates
from tests.model.conftest import CHANNELS, GLYPH_DIM, TEXT_DIM, latents, references, text

MakeLora = Callable[..., LoraAdapter]
TIMES = torch.tensor([713.0, 20.0, 500.0])


def diffusers_forward(
    transformer: nn.Module, x: torch.Tensor, t: torch.Tensor, texts: list[TextStates]
) -> torch.Tensor:
    """diffusers' own forward, with its padding."""
    batch, size, glyphs = len(texts), 11, 6
    states, mask = torch.zeros(batch, size, TEXT_DIM), torch.zeros(batch, size)
    states_2, mask_2 = torch.zeros(batch, glyphs, GLYPH_DIM), torch.zeros(batch, glyphs)
    for i, one in enumerate(texts):
        states[i, : len(one.states_SD)], mask[i, : len(one.states_SD)] = one.states_SD, 1
        if one.glyphs_GD is not None:
            states_2[i, : len(one.glyphs_GD)], mask_2[i, : len(one.glyphs_GD)] = one.glyphs_GD, 1
    padded = torch.cat([x, torch.zeros(batch, CHANNELS + 1, *x.shape[2:])], dim=1)
    return transformer(
        padded, t, states, mask, encoder_hidden_states_2=states_2, encoder_attention_mask_2=mask_2,
        image_embeds=torch.zeros(batch, 5, 8), return_dict=False,
    )[0]  # fmt: skip


@torch.no_grad()
def test_equals_diffusers_without_carrying_its_padding(transformer: nn.Module) -> None:
    texts = [text(5, 1), text(9, 2, num_glyphs=4), text(2, 3)]
    ours = denoise(transformer, latents(3), TIMES, texts)
    torch.testing.assert_close(
        ours, diffusers_forward(transformer, latents(3), TIMES, texts), atol=1e-5, rtol=0
    )


@torch.no_grad()
@pytest.mark.parametrize("attention", ["joint", "isolated"])
def test_zero_initialised_adapters_change_no_bit(
    transformer: nn.Module, make_lora: MakeLora, attention: str
) -> None:
    zero = Routes(
        subject=make_lora("subject", 1, is_zero=True),
        reference=make_lora("reference", 2, is_zero=True),
    )
    texts = [text(5, 1), text(9, 2)]
    plain = denoise(transformer, latents(2), TIMES[:2], texts)
    assert torch.equal(plain, denoise(transformer, latents(2), TIMES[:2], texts, routes=zero))
    views = references(2)
    if attention == "joint":
        base = denoise(transformer, latents(2), TIMES[:2], texts, references_BVCHW=views)
        ours = denoise(
            transformer, latents(2), TIMES[:2], texts, references_BVCHW=views, routes=zero
        )
    else:
        base_kv = encode_references(transformer, views, reference=None)
        zero_kv = encode_references(transformer, views, reference=zero.reference)
        base = denoise(transformer, latents(2), TIMES[:2], texts, reference_kv=base_kv)
        ours = denoise(transformer, latents(2), TIMES[:2], texts, reference_kv=zero_kv, routes=zero)
    assert torch.equal(base, ours)
    assert not torch.equal(base, plain)


@torch.no_grad()
def test_a_batch_of_different_adapters_equals_single_runs(
    transformer: nn.Module, make_lora: MakeLora
) -> None:
    subjects = [make_lora("subject", 1), make_lora("subject", 2, rank=2), None]
    readers = [make_lora("reference", 4), make_lora("reference", 5), make_lora("reference", 6)]
    texts = [text(5, 1), text(9, 2), text(5, 3)]
    views, x = references(3), latents(3)
    both = denoise(
        transformer, x, TIMES, texts, references_BVCHW=views,
        routes=Routes(subject=RowLoras(subjects), reference=RowLoras(readers)),
    )  # fmt: skip
    for i in range(3):
        one = denoise(
            transformer, x[i : i + 1], TIMES[i : i + 1], texts[i : i + 1],
            references_BVCHW=views[i : i + 1],
            routes=Routes(subject=subjects[i], reference=readers[i]),
        )  # fmt: skip
        torch.testing.assert_close(both[i : i + 1], one, atol=1e-5, rtol=0)


@torch.no_grad()
def test_permuting_the_batch_permutes_the_output(
    transformer: nn.Module, make_lora: MakeLora
) -> None:
    routes = Routes(subject=make_lora("subject", 1), reference=make_lora("reference", 2))
    texts, order = [text(5, 1), text(9, 2), text(4, 3)], [2, 0, 1]
    out = denoise(
        transformer, latents(3), TIMES, texts, routes=routes, references_BVCHW=references(3)
    )
    turned = denoise(
        transformer, latents(3)[order], TIMES[order], [texts[i] for i in order],
        routes=routes, references_BVCHW=references(3)[order],
    )  # fmt: skip
    torch.testing.assert_close(turned, out[order], atol=1e-5, rtol=0)


@torch.no_grad()
def test_isolated_references_do_not_see_the_noise_and_may_be_shared(
    transformer: nn.Module, make_lora: MakeLora
) -> None:
    routes = Routes(subject=make_lora("subject", 1), reference=make_lora("reference", 2))
    texts, views = [text(5, 1), text(9, 2)], references(1)
    shared = encode_references(transformer, views, reference=routes.reference)
    copied = encode_references(transformer, views.expand(2, -1, -1, -1, -1),
                               reference=routes.reference)  # fmt: skip
    a = denoise(transformer, latents(2), TIMES[:2], texts, routes=routes, reference_kv=shared)
    b = denoise(transformer, latents(2), TIMES[:2], texts, routes=routes, reference_kv=copied)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    joint = denoise(
        transformer, latents(2), TIMES[:2], texts, routes=routes,
        references_BVCHW=views.expand(2, -1, -1, -1, -1),
    )  # fmt: skip
    assert (a - joint).abs().max() > 1e-3


@torch.no_grad()
def test_views_are_told_apart_by_position_and_offset(
    transformer: nn.Module, make_lora: MakeLora
) -> None:
    routes = Routes(reference=make_lora("reference", 2))
    x, t, texts = latents(1), TIMES[:1], [text(5, 1)]
    views = references(1)
    plain = denoise(transformer, x, t, texts, routes=routes, references_BVCHW=views)
    swapped = denoise(transformer, x, t, texts, routes=routes, references_BVCHW=views.flip(1))
    moved = denoise(
        transformer, x, t, texts, routes=routes, references_BVCHW=views, reference_time_offset=7
    )
    assert (plain - swapped).abs().max() > 1e-4
    assert (plain - moved).abs().max() > 1e-4


def test_checkpointing_gives_the_same_gradients(
    transformer: nn.Module, make_lora: MakeLora
) -> None:
    found = []
    for is_checkpointed in (False, True):
        subject, reference = make_lora("subject", 1), make_lora("reference", 2)
        out = denoise(
            transformer, latents(2), TIMES[:2], [text(5, 1), text(9, 2)],
            routes=Routes(subject=subject, reference=reference),
            references_BVCHW=references(2), is_checkpointed=is_checkpointed,
        )  # fmt: skip
        out.square().mean().backward()
        found.append([p.grad for m in (subject, reference) for p in m.parameters()])
    for plain, again in zip(*found, strict=True):
        assert (plain is None) == (again is None)
        if plain is not None:
            torch.testing.assert_close(plain, again, atol=1e-7, rtol=1e-5)


@torch.no_grad()
def test_text_scope_span_acts_on_the_named_tokens_alone(
    transformer: nn.Module, make_lora: MakeLora
) -> None:
    routes = {s: Routes(subject=make_lora("subject", 1), text_scope=s) for s in ("prompt", "span")}
    unmarked = text(6, 1).__class__(text(6, 1).states_SD, None, span=None)
    x, t = latents(1), TIMES[:1]
    outs = {s: denoise(transformer, x, t, [text(6, 1)], routes=r) for s, r in routes.items()}
    assert (outs["prompt"] - outs["span"]).abs().max() > 1e-4
    # The image side of the subject adapter acts all the same.
    bare = denoise(transformer, x, t, [unmarked], routes=routes["span"])
    assert (bare - outs["span"]).abs().max() > 1e-4
    assert (bare - denoise(transformer, x, t, [unmarked])).abs().max() > 1e-4


@torch.no_grad()
def test_threads_share_a_backbone(transformer: nn.Module, make_lora: MakeLora) -> None:
    routes = [Routes(subject=make_lora("subject", i)) for i in range(4)]
    alone = [denoise(transformer, latents(1), TIMES[:1], [text(5, 1)], routes=r) for r in routes]
    found: dict[int, torch.Tensor] = {}

    def work(index: int) -> None:
        with torch.no_grad():
            for _ in range(5):
                found[index] = denoise(
                    transformer, latents(1), TIMES[:1], [text(5, 1)], routes=routes[index]
                )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, expected in enumerate(alone):
        assert torch.equal(found[index], expected)


@torch.no_grad()
def test_the_backbone_is_left_untouched(transformer: nn.Module, make_lora: MakeLora) -> None:
    before = {k: v.clone() for k, v in transformer.state_dict().items()}
    names = {n: type(m) for n, m in transformer.named_modules()}
    denoise(transformer, latents(1), TIMES[:1], [text(5, 1)],
            routes=Routes(subject=make_lora("subject", 1)))  # fmt: skip
    assert {n: type(m) for n, m in transformer.named_modules()} == names
    assert all(torch.equal(v, before[k]) for k, v in transformer.state_dict().items())


def test_both_kinds_of_references_are_refused(transformer: nn.Module) -> None:
    kv = encode_references(transformer, references(1), reference=None)
    with pytest.raises(ConfigError, match=r"joint.*isolated"):
        denoise(
            transformer, latents(1), TIMES[:1], [text(5, 1)],
            references_BVCHW=references(1), reference_kv=kv,
        )  # fmt: skip

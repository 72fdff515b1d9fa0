"""The prior says object where there is one; its cues are what their papers say."""

import heapq

import numpy as np
import torch
from numpy.typing import NDArray

from dreambooth3d.vision.efficientnet import load_efficientnet
from dreambooth3d.vision.saliency import (
    barrier_distance,
    border_contrast,
    centre_weight,
    look_at,
)
from tests.vision.pictures import drawn_photo

Map = NDArray[np.float32]


def flat(height: int, width: int, value: float = 10.0) -> Map:
    return np.full((height, width, 3), value, np.float32)


def least_range(values: Map) -> Map:
    """Exact minimum barrier distance of one channel: all lower bounds, bottleneck paths."""
    height, width = values.shape
    best = np.full(values.shape, np.inf, np.float32)
    best[[0, -1]] = 0
    best[:, [0, -1]] = 0
    for low in np.unique(values):
        top = np.full(values.shape, np.inf)
        queue = [
            (float(values[y, x]), y, x)
            for y in range(height)
            for x in range(width)
            if (y in (0, height - 1) or x in (0, width - 1)) and values[y, x] >= low
        ]
        heapq.heapify(queue)
        while queue:
            high, y, x = heapq.heappop(queue)
            if top[y, x] <= high:
                continue
            top[y, x] = high
            for j, i in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= j < height and 0 <= i < width and values[j, i] >= low:
                    heapq.heappush(queue, (max(high, float(values[j, i])), j, i))
        best = np.minimum(best, (top - low).astype(np.float32))
    return best


def test_barrier_distance_is_close_to_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 20, (9, 11)).astype(np.float32)
    values[3:6, 4:8] += 40
    exact = least_range(values)
    found = barrier_distance(np.repeat(values[..., None], 3, axis=2))
    exact /= exact.max()
    assert (found >= exact - 0.05).all()
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.95


def test_a_box_is_as_far_as_its_contrast_and_its_surroundings_are_not() -> None:
    lab = flat(20, 24)
    lab[6:12, 8:15] += 30
    distance = barrier_distance(lab)
    expected = np.zeros((20, 24))
    expected[6:12, 8:15] = 1
    np.testing.assert_array_equal(distance, expected)


def test_a_page_of_one_colour_stands_out_nowhere() -> None:
    assert not barrier_distance(flat(8, 8)).any()
    assert not border_contrast(flat(8, 8)).any()


def test_turning_the_page_turns_the_cues() -> None:
    lab = np.random.default_rng(1).normal(0, 20, (16, 16, 3)).astype(np.float32)
    turned = np.ascontiguousarray(lab[:, ::-1])
    np.testing.assert_allclose(border_contrast(turned), border_contrast(lab)[:, ::-1], atol=1e-5)


def test_an_object_that_reaches_one_side_still_differs() -> None:
    lab = flat(40, 40)
    lab[25:, 12:28] += 30
    contrast = border_contrast(lab)
    assert contrast[30, 20] > 0.9
    assert contrast[5, 20] < 0.1


def test_the_centre_weighs_most() -> None:
    weight = centre_weight(11, 21)
    assert weight.shape == (11, 21)
    assert weight.max() == weight[5, 10] == 1
    assert weight[0, 0] < 0.1


def test_the_prior_is_higher_on_the_object() -> None:
    image, mask = drawn_photo((600, 480))
    prior = look_at(np.asarray(image)).prior_HW
    assert prior.dtype == np.uint8
    assert prior.shape == (240, 300)
    mask = mask[::2, ::2]
    assert prior[mask].mean() > 3 * prior[~mask].mean()


def test_threads_are_left_as_they_were() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = look_at(np.asarray(drawn_photo()[0])).prior_HW
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        np.testing.assert_array_equal(look_at(np.asarray(drawn_photo()[0])).prior_HW, two)
    finally:
        torch.set_num_threads(threads)


def test_class_evidence_of_all_places_adds_up_to_the_likely_classes() -> None:
    model = load_efficientnet()
    x = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    h = model.feature_map(x)
    assert h.shape == (1, 1280, 3, 2)
    torch.testing.assert_close(model.features(x), h.mean(dim=(2, 3)))
    logits = model(x) - model._fc.bias
    likely = model(x).softmax(dim=1)
    expected = (likely * logits).sum(dim=1) - logits.mean(dim=1)
    torch.testing.assert_close(model.class_evidence(h).mean(dim=(1, 2)), expected)

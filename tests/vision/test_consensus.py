"""Two witnesses: what each sees, where they agree, and that contradiction is refused."""

import numpy as np
import pytest
import torch

from dreambooth3d.vision.consensus import Consensus, agree, overlap
from dreambooth3d.vision.evidence import colour_evidence, feature_evidence
from dreambooth3d.vision.mincut import divide
from tests.vision.pictures import ellipse

SIZE = (96, 96)
BODY = ellipse(SIZE, (0.5, 0.45), (0.2, 0.2))
WHEELS = ellipse(SIZE, (0.5, 0.66), (0.2, 0.14)) & ~BODY
NOTHING = np.zeros(SIZE, np.bool_)


def car() -> np.ndarray:
    """Draw a red body whose wheels are gray like the stripes on the ground."""
    page = np.random.default_rng(0).integers(60, 80, (*SIZE, 3), dtype=np.uint8)
    page[WHEELS] += 50
    page[:, 4:8] += 50
    page[BODY] = (200, 40, 30)
    return page


def seen(mask: np.ndarray) -> torch.Tensor:
    """Make features that know a mask, a place for 8 x 8 pixels."""
    share = mask.reshape(12, 8, 12, 8).mean(axis=(1, 3)).astype(np.float32)
    return torch.from_numpy(np.stack([share, 1 - share]) - share.mean())


def prior() -> np.ndarray:
    return np.where(BODY, 255, np.where(WHEELS, 90, 0)).astype(np.uint8)


def test_colours_tell_the_sides_apart_and_cannot_see_wheels_in_the_grounds_colour() -> None:
    evidence = colour_evidence(car(), BODY)
    assert evidence[BODY].min() > 0.9
    assert evidence[~BODY].max() < -0.9
    np.testing.assert_array_equal(colour_evidence(car(), NOTHING), -1)


def test_features_see_wheels_that_taught_them_nothing() -> None:
    whole = BODY | WHEELS
    evidence = feature_evidence(seen(whole), BODY, WHEELS)
    assert evidence[WHEELS].mean() > evidence[~whole].mean() + 0.5
    assert np.abs(evidence).max() <= 1


def test_one_evidence_everywhere_has_no_border() -> None:
    assert divide(np.full(SIZE, 0.5, np.float32), car(), 4.0).all()
    assert not divide(np.full(SIZE, -0.5, np.float32), car(), 4.0).any()


def test_a_border_moves_to_the_pictures_edge_and_specks_are_outvoted() -> None:
    evidence = np.where(ellipse(SIZE, (0.5, 0.45), (0.17, 0.17)), 1, -0.02).astype(np.float32)
    evidence[~ellipse(SIZE, (0.5, 0.45), (0.23, 0.23))] = -1
    evidence[5, 5] = 1
    assert overlap(divide(evidence, car(), 4.0), BODY) > 0.97


def test_witnesses_that_agree_give_the_mask() -> None:
    found = agree(BODY, prior(), car(), seen(BODY))
    assert found.is_certain
    assert overlap(found.mask_HW, BODY) > 0.95


def test_witnesses_that_contradict_each_other_are_heard_out() -> None:
    agreed = agree(BODY, prior(), car(), seen(BODY)).agreement
    assert agree(BODY, prior(), car(), seen(BODY | WHEELS)).agreement < agreed - 0.05


@pytest.mark.parametrize("agreement", [0.5, float("nan")])
def test_little_agreement_is_no_certainty(agreement: float) -> None:
    assert not Consensus(mask_HW=BODY, agreement=agreement).is_certain


def test_overlap_of_masks() -> None:
    assert overlap(BODY, BODY) == 1
    assert overlap(BODY, WHEELS) == overlap(NOTHING, NOTHING) == 0

"""The best division of a grid into object and background, by a minimum cut.

Boykov and Jolly 2001, "Interactive graph cuts for optimal boundary & region segmentation of
objects in N-D images".
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from dreambooth3d.vision.pieces import Mask

Map = NDArray[np.float32]

# Flows are whole numbers, and so the same everywhere.
_STEPS = 100


def divide(evidence_HW: Map, pixels_HWC: NDArray[np.uint8], stiffness: float) -> Mask:
    """Return the object: what evidence says, but with a border along the picture's edges.

    Args:
        evidence_HW: positive for the object, negative for the background.
        pixels_HWC: RGB.
        stiffness: what a border between two pixels of one colour costs.
    """
    index_HW = np.arange(evidence_HW.size).reshape(evidence_HW.shape)
    across, down = _border_costs(pixels_HWC, stiffness)
    ends = (
        (index_HW[:, :-1].ravel(), index_HW[:, 1:].ravel(), across.ravel()),
        (index_HW[:-1].ravel(), index_HW[1:].ravel(), down.ravel()),
    )
    gain = np.rint(evidence_HW.ravel() * _STEPS).astype(np.int32)
    source, sink = gain.size, gain.size + 1
    inside, outside = np.flatnonzero(gain > 0), np.flatnonzero(gain < 0)
    starts = [np.full(len(inside), source), outside]
    stops = [inside, np.full(len(outside), sink)]
    capacities = [gain[inside], -gain[outside]]
    for first, second, cost in ends:
        starts += [first, second]
        stops += [second, first]
        capacities += [cost, cost]
    places = (np.concatenate(starts), np.concatenate(stops))
    graph = csr_matrix((np.concatenate(capacities), places), shape=(sink + 1, sink + 1))
    return _source_side(graph, source, sink)[: gain.size].reshape(evidence_HW.shape)


def _border_costs(
    pixels_HWC: NDArray[np.uint8], stiffness: float
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Costs between neighbours in a row and in a column; little where colours differ."""
    pixels = pixels_HWC.astype(np.int64)
    across = ((pixels[:, 1:] - pixels[:, :-1]) ** 2).sum(axis=2)
    down = ((pixels[1:] - pixels[:-1]) ** 2).sum(axis=2)
    usual = max((int(across.sum()) + int(down.sum())) / (across.size + down.size), 1e-6)
    costs = [np.exp(-apart / (2 * usual)) * stiffness * _STEPS for apart in (across, down)]
    # At least 1: a border is never free.
    first, second = (np.rint(cost).astype(np.int32) + 1 for cost in costs)
    return first, second


def _source_side(graph: csr_matrix, source: int, sink: int) -> Mask:
    """Say of each node whether something can still flow to it from the source."""
    left = graph - maximum_flow(graph, source, sink).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    is_reached = np.zeros(sink + 1, dtype=np.bool_)
    is_reached[breadth_first_order(left, source, return_predecessors=False)] = True
    return is_reached

"""Which reference goes with which target of one object."""

import math

_GOLDEN_SHARE = (math.sqrt(5) - 1) / 2


def spread_pairs(
    num_references: int, num_targets: int, num_pairs: int, *, is_same: bool
) -> tuple[tuple[int, int], ...]:
    """Choose different pairs (reference, target) that use all pictures about equally often.

    Args:
        num_references, num_targets: pictures to choose from.
        num_pairs: wanted; fewer come when there are not so many.
        is_same: both are the same pictures, and none is paired with itself.
    """
    num_shifts = num_references - is_same
    if num_shifts < 1 or num_targets < 1:
        return ()
    rounds, rest = divmod(min(num_pairs, num_shifts * num_targets), num_targets)
    pairs: list[tuple[int, int]] = []
    for turn, shift in enumerate(_shifts(num_shifts)):
        count = num_targets if turn < rounds else rest if turn == rounds else 0
        targets = [index * num_targets // count for index in range(count)]
        pairs += [((target + shift + is_same) % num_references, target) for target in targets]
    return tuple(pairs)


def _shifts(count: int) -> list[int]:
    """All of 0 to count - 1, each far from those before it: the first is the opposite view."""
    step = max(1, round(count * _GOLDEN_SHARE))
    while math.gcd(step, count) != 1:
        step += 1
    return [(count // 2 + turn * step) % count for turn in range(count)]

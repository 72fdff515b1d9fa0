"""Proof of the ruler: it orders published clips, knows its own subject, and agrees with libraries.

In sample: the three published clips were looked at while the ruler was made. Its way to cut out a
subject was chosen by eye on them and that colours have a tolerance by their order; no weight was
fitted, and the bars of the rows on order
and on the clips' shapes were set when these clips had been measured. The photos
and the other subjects' views were not looked at.
"""

from benchmarks import evaluate_clips as clips
from benchmarks import evaluate_numerics as numerics
from benchmarks import evaluate_photos as photos
from benchmarks import evaluate_shapes as shapes
from benchmarks.ablation import chamfer_order
from benchmarks.rows import Row

ROWS: tuple[Row, ...] = (
    Row(name="library_difference", measure=numerics.library_difference, rule="<=", bar=1e-4),
    Row(name="identical_from_ideal", measure=photos.most_apart, rule="<=", bar=1e-3),
    Row(name="chamfer_identical", measure=numerics.chamfer_identical, rule="<=", bar=1e-3),
    Row(name="chamfer_invariance", measure=numerics.chamfer_invariance, rule="<=", bar=0.02),
    Row(name="chamfer_offset_error", measure=numerics.chamfer_offset, rule="<=", bar=0.02),
    Row(name="hull_tells_subjects", measure=numerics.hull_tells_subjects, rule=">=", bar=0.95),
    Row(name="clip_shapes_apart", measure=shapes.shapes_apart, rule=">=", bar=0.02),
    Row(name="own_view_above_others", measure=photos.view_pairs, rule=">=", bar=0.95),
    Row(name="own_photo_above_others", measure=photos.photo_pairs, rule=">=", bar=0.95),
    Row(name="speed_seconds", measure=lambda _: clips.cost().seconds, rule="<=", bar=60),
    Row(name="memory_growth_mb", measure=lambda _: clips.cost().growth_mb, rule="<=", bar=64),
    Row(name="clips_in_order", measure=clips.least_margin, rule=">=", bar=0.001),
    Row(name="drawn_frames_in_order", measure=clips.drawn_in_order, rule=">=", bar=0.85),
    Row(name="single_frames_in_order", measure=clips.single_frames, rule=">=", bar=0.75),
    Row(name="own_clip_above_wrong", measure=clips.above_wrong, rule=">=", bar=0.03),
    Row(name="own_frame_above_wrong", measure=clips.above_wrong_frames, rule=">=", bar=0.95),
    Row(name="paper_in_small", measure=chamfer_order, rule=">=", bar=0.0),
)

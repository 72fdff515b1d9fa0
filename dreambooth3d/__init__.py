"""dreambooth3d: your own objects, photographed from a few sides, starring in generated video."""

__version__ = "0.1.0"

"""Flow matching as pure functions: path, noise levels, noise, guidance, sampler.

The model is a callable; nothing here knows of adapters, files or devices.
"""

"""The method on diffusers' HunyuanVideo-1.5: tensors in, tensors out.

Shape letters: B batch, V reference views, C latent channels, T latent frames, H W latent grid,
N image tokens, S text tokens, P packed text tokens (the sum of S over the batch), D width,
K heads, E channels a head, R LoRA rank.
"""

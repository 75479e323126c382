"""The models the method works with: a Stable Diffusion pipeline, a feature extractor and CLIP."""

"""Ways to look at a run; each takes arrays and returns arrays, tables or sentences.

`projection`: where the images lie, and how far to believe it. `vocabulary` and `attributes`: what a group of images
shares, and how often it occurs in gallery after gallery; `inquiry` puts it together and says what to do about it.
`prompt_match`: was it asked for. `segmentation` and `localization`: is it on the foreground, and where in the image.
`counterfactual`: does it stick. `statistics`: with them, prompt similarity and identity. None of them reads a file that
the caller did not name, shows anything, or loads torch.
"""

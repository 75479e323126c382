"""Ways to look at a run; each takes arrays and returns arrays, tables or sentences.

`maps` and `trust`: where the images lie, and how far to believe it. `vocabulary`, `presence` and `attributes`: what
a group of images shares; `inquiry` puts it together. `asked` and `evidence`: was it asked for, and is it on the
figure. `suggest`: what to do about it. `drift` and `persistence`: does it stick. `foreground` and `heat`: where in
the image; `overlays` and `charts` draw it. `scores`: prompt similarity and identity. None of them reads a file that
the caller did not name, shows anything, or loads torch.
"""

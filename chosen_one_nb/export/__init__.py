"""Characters as files that other tools load: diffusers, kohya and A1111, ComfyUI; and back.

`names` (what the tools call a UNet's layers), `safe` (safetensors files, with errors that say what to do),
`layers` (LoRA halves by layer, checked), `diffusers_format`, `kohya`, `embeddings` and `comfyui` (one tool's
form each), `wording` (prompts as the tools read them, text as markdown shows it), `drawn` (the best
images), `base` (what is known of the base model), `folder_readme` (the README of an export), `writing` and
`reading` (whole exports). People call `Character.export` and `Character.load`.
"""

"""Characters as files that other programs load (diffusers, kohya and A1111, ComfyUI), and back.

>>> from chosen_one_nb import export
>>> export.FORMATS
('diffusers', 'kohya', 'comfyui')
"""

from chosen_one_nb.export.content import a1111_prompt, comfyui_prompt
from chosen_one_nb.export.reader import read
from chosen_one_nb.export.writer import FORMATS, write

__all__ = ["FORMATS", "a1111_prompt", "comfyui_prompt", "read", "write"]

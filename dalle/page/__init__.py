"""The web page: what it shows is made of `dalle`'s public API alone.

This file and all that is not a tab of the page (limits, faults, uploads, admission, exports,
snippets, restored settings, batches, grids, exploring) need neither gradio nor, at import, torch.
"""

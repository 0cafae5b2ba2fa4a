"""Captioned emoji scenes: real drawings, true captions, and ground truth for everything.

Read in this order: `font` finds and draws glyphs, `names` and `subjects` say what they are called,
`looks` and `palette` what can be done to them, `scene` is a finished plan of a picture, `grammar`
draws plans at random and `wording` captions them, `heldout` says which plans training may never
see, `render` paints a plan, `write` stores many. Nothing here imports torch.
"""

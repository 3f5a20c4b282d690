"""Model folders: `model.json` and one safetensors file per network.

`manifest` and `hub` list and check them without torch; `registry` has the kinds of networks; `io` writes and reads them;
`quantize` stores weights in 8 or 16 bits; `keymap` translates weights of public formats (`unclip.formats`).
"""

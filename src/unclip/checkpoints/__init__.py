"""Models on disk: a folder with `model.json` and one safetensors file a part.

`manifest` and `hub` say what there is and whether it is whole, without torch; `registry` knows the kinds of
parts; `io` writes and reads them; `quantize` packs them small.
"""

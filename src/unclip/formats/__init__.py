"""Public model formats: recognise a folder, read its configs, load its weights into the networks of this package.

`registry` lists the formats and imports no torch. Each format is one module with `open_folder`: the table of keys, the
config, and the files of each network. Tables that several formats share are in `key_maps/`. `opened` opens a model of any
format, `convert` writes one as a model folder, `pull` downloads from the hub.
"""

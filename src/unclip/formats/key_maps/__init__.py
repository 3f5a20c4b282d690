"""Tables of keys and config readers that several public formats share: CLIP, PriorTransformer, U-Nets, schedulers."""

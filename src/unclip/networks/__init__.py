"""Models: one file holds one frozen config and one `nn.Module`, a pure function of tensors."""

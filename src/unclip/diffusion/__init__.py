"""The diffusion core: noise, parametrisations, losses, samplers and guidance. Depends on torch only.

The state is ``x = x0 + sigma * eps`` everywhere. The textbook state of DDPM, with
``q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)``, is ``x / sqrt(1 + sigma**2)``, where
``abar = 1 / (1 + sigma**2)``.
"""

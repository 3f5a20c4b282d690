"""What every test shares: no network, and as many threads as the machine was told to use."""

import os

# Set before any library reads them: a test that would download must fail at once instead.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tensors in tests are tiny, and workers may share the cores: one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

"""The project's benchmark: ours beside two baselines on the same machine. See README.md."""

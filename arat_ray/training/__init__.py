"""Training: the methods, and the loop that runs one of them. Plain torch: neither Ray nor Optuna."""

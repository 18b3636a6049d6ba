"""Data: the sets of images, their splits, their augmentation and their batches."""

"""Tracking: a study as TensorBoard, MLflow, Weights & Biases and spreadsheets know it, from its tables."""

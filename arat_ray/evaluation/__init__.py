"""Evaluation: clean and robust accuracy of one network under one named attack on one named split."""

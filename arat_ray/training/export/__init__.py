"""Export: the deployed network for use elsewhere."""

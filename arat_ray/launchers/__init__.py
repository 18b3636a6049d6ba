"""The files that start clusters: checked offline against the clouds' own models, and AWS prepared for them."""

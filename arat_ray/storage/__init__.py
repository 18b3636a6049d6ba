"""Storage: studies and data sets in a bucket, worked on through a local mirror."""

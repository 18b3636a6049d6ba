"""Report: what people read of the tables and the front, in text and pictures."""

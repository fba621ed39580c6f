"""Tables of the encoders against their alternatives: ``make bench-papers``."""

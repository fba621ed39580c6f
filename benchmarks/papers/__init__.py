"""Tables that hold the trained encoders against what would be chosen instead: ``make bench-papers``."""

"""An index of DRQ codes in this process."""

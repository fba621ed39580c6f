"""What the gateway costs, how much passes through it, and whether it stands an hour of faults."""

"""The gateway's added latency, its throughput, and an hour of faults."""

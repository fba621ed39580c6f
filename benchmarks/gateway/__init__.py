"""The gateway's latency and throughput, abusive clients, an hour of faults."""

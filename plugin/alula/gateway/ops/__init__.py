"""Operation of a gateway: log, metrics, health, HTTP pages and TLS."""

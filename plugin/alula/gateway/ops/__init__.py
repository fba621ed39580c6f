"""Operating a gateway: health, metrics, HTTP pages, TLS, logs."""

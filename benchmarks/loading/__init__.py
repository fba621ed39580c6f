"""The promises of ``alula load``: exact under faults, fast, within 1 GB."""

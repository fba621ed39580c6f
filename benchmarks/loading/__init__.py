"""What ``alula load`` is held to: no row lost, doubled or changed by any fault, faster than a plain script, in 1 GB."""

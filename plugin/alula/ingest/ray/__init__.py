"""The Ray engine: read, encode and write on several machines.

Ray Data gives slices of a source to workers, and the driver keeps the journal. A worker reads, encodes and writes its
slice with the same `Pipeline` as a load on one machine, and returns one small result, which the driver acknowledges on
disk. Ray repeats a slice silently when a worker is lost, and workers of a killed driver may write for a moment longer.
So rows are always upserted: a slice that is written twice, or late, leaves the same rows. Slices in doubt are checked
once more at the end, as after any other load.
"""

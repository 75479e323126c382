"""Prompts x settings x seeds on several workers: a plan, its shards on disk, the workers, a table.

A shard is a batch of one gallery (or a whole run), and lies on disk once it is done; doing it again does
nothing. Its images depend on their own seeds and on nothing else, so any number of workers, killed or not,
leaves the same files. The workers are joblib's: processes of this machine, or Dask's or Ray's.
"""

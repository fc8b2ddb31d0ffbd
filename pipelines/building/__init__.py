"""Labelled samples in, a prepared set out: shards of records, and the manifest that makes them a set."""

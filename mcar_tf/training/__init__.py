"""Trains one run: model, optimizer, data and callbacks, up to the finished run folder."""

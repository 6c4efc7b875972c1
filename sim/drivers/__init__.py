"""Drivers move bytes and time for the protocol: `virtual` in simulated time, `live` over ZeroMQ.

Both run the very same sender, channel and receiver, and answer with the same `StreamRecord`.
"""

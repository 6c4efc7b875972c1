"""Drivers, which give the protocol its bytes and times: `virtual` simulated, `live` over sockets.

Both run the very same sender, channel and receiver, and answer with the same `StreamRecord`.
"""

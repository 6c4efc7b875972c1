"""The stream protocol without input or output: no sockets, no clocks, no threads.

Bytes and times go in as arguments; bytes and events come out. Theory of operation:

- `packetizer` cuts a frame's grid of tokens into slices (`interleaver` says which tokens), codes
  each slice on its own and puts it into one `packet`.
- `packing` puts slices of several frames into one packet; `plan` says what leaves when.
- `blocks` codes parity (`fec`, `parity`) over packets of several frames, `repair` restores from it.
- `requests` decides what the receiver asks for again (`feedback`).
- `handshake` is told to the receiver once, reliably, before any packet: the timeline and the
  sizes of the frames, so that a frame of which nothing arrives is still missed on time.
- `sender` paces packets, `receiver` sorts out what arrives and reports each frame (`events`) at
  its playout deadline. `ledger` closes the account.
"""

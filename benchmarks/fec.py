"""Speed of parity, each code as a ratio to its library called bare in the same run.

Run from the root: ``python -m benchmarks.fec [--json]``. Times are processor time (so that a busy
machine matters less), the best of several rounds in which reference and subject take turns.

"bare" is the library given its own kind of data: pyeclib (ISA-L) one buffer to encode and ready
fragments to decode, raptorq one buffer and ready packets. Ours is `sim.protocol.fec.ErasureCode`:
symbols in, parity out; the symbols that are held in, those that were lost out. As many data
symbols are lost as there is parity, which is the most work. Reed-Solomon without the extra is
compared with the same bare pyeclib. The last rows are all of the protocol: packets in, parity
datagrams out, and back.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from sim.protocol.blocks import Protected, parity_packets
from sim.protocol.erasure_codes import ReedSolomon, Xor
from sim.protocol.fec import ErasureCode, erasure_code
from sim.protocol.parity import pack_parity, parse_parity
from sim.protocol.plan import Group
from sim.protocol.protection import FecConfig
from sim.protocol.repair import Repair

ROUNDS, REPEATS = 10, 50
BLOCKS = [(16, 4, 64), (16, 4, 200), (20, 10, 200), (16, 4, 1400)]  # data, parity, bytes
KEY = 7
Row = dict[str, object]


def best_times(*actions: Callable[[], object]) -> list[float]:
    """Least processor time of each action, in seconds, over alternating rounds."""
    best = [math.inf] * len(actions)
    for _ in range(ROUNDS):
        for index, action in enumerate(actions):
            start = time.process_time()
            for _ in range(REPEATS):
                action()
            best[index] = min(best[index], (time.process_time() - start) / REPEATS)
    return best


def block(k: int, length: int) -> list[bytes]:
    """k random symbols."""
    rng = np.random.default_rng(1)
    return [rng.bytes(length) for _ in range(k)]


def damaged(code: ErasureCode, symbols: list[bytes], m: int) -> dict[int, bytes]:
    """What is held of a coded block when its first m symbols are lost."""
    everything = [*symbols, *code.encode(symbols, m)]
    return {i: symbol for i, symbol in enumerate(everything) if i >= min(m, len(symbols))}


def row(what: str, code: str, k: int, m: int, length: int, ours: float, bare: float | None) -> Row:
    """One line: microseconds a block, source megabytes a second, share of the bare speed."""
    return {
        "what": what,
        "code": code,
        "block": f"{k}+{m} x {length}",
        "us": round(1e6 * ours, 2),
        "MB/s": round(k * length / ours / 1e6, 1),
        "of bare": None if bare is None else round(bare / ours, 3),
    }


def isal(k: int, m: int, length: int) -> list[Row]:
    """Reed-Solomon with and without its extra against bare pyeclib."""
    from pyeclib.ec_iface import ECDriver

    driver = ECDriver(k=k, m=m, ec_type="isa_l_rs_cauchy")
    symbols, fast, own = block(k, length), erasure_code("reed_solomon"), ReedSolomon()
    data = b"".join(symbols)
    fragments = driver.encode(data)[m:]
    held = damaged(own, symbols, m)
    lost = {i: symbols[i] for i in range(m)}
    assert driver.decode(fragments) == data
    assert fast.decode(k, m, held) == own.decode(k, m, held) == lost
    bare, ours, plain = best_times(
        lambda: driver.encode(data), lambda: fast.encode(symbols, m), lambda: own.encode(symbols, m)
    )
    rows = [
        row("encode", "reed_solomon + fec extra", k, m, length, ours, bare),
        row("encode", "reed_solomon", k, m, length, plain, bare),
    ]
    bare, ours, plain = best_times(
        lambda: driver.decode(fragments),
        lambda: fast.decode(k, m, held),
        lambda: own.decode(k, m, held),
    )
    return [
        *rows,
        row("decode", "reed_solomon + fec extra", k, m, length, ours, bare),
        row("decode", "reed_solomon", k, m, length, plain, bare),
    ]


def raptorq(k: int, m: int, length: int) -> list[Row]:
    """The rateless code against the bare package."""
    from raptorq import Decoder, Encoder

    symbols, code = block(k, length), erasure_code("raptorq")
    data = b"".join(symbols)
    packets = Encoder.with_defaults(data, length).get_encoded_packets(m)[m:]
    held = damaged(code, symbols, m)

    def decode() -> None:
        decoder = Decoder.with_defaults(len(data), length)
        for packet in packets:
            decoder.decode(packet)

    bare, ours = best_times(
        lambda: Encoder.with_defaults(data, length).get_encoded_packets(m),
        lambda: code.encode(symbols, m),
    )
    rows = [row("encode", "raptorq", k, m, length, ours, bare)]
    bare, ours = best_times(decode, lambda: code.decode(k, m, held))
    return [*rows, row("decode", "raptorq", k, m, length, ours, bare)]


def xor(k: int, m: int, length: int) -> list[Row]:
    """XOR parity; nothing to compare with."""
    symbols, code = block(k, length), Xor()
    held = damaged(code, symbols, m)
    encode, decode = best_times(lambda: code.encode(symbols, m), lambda: code.decode(k, m, held))
    return [
        row("encode", "xor", k, m, length, encode, None),
        row("decode", "xor", k, m, length, decode, None),
    ]


def protocol(k: int, m: int, length: int) -> list[Row]:
    """A block through everything: parity datagrams made, parsed, and lost packets restored."""
    fec = FecConfig("reed_solomon", k, m)
    code, group = erasure_code(fec.code), Group(0, k, 0, (0, 0))
    sealed = [Protected(symbol, 1.0) for symbol in block(k, length - 1)]

    def send() -> list[bytes]:
        return [pack_parity(packet, KEY) for packet in parity_packets(fec, code, group, sealed)]

    parity = send()
    repair = Repair(fec)

    def receive() -> int:
        repair.close(group.last_frame)  # that of the round before
        repair.open(group)
        for sequence in range(m, k):
            repair.media(sequence, sealed[sequence].sealed)
        return sum(len(repair.parity(0, parse_parity(data, KEY)) or ()) for data in parity)

    assert receive() == m
    encode, decode = best_times(send, receive)
    return [
        row("encode", "all of the protocol", k, m, length, encode, None),
        row("decode", "all of the protocol", k, m, length, decode, None),
    ]


def main() -> None:
    """Print a table, or JSON."""
    rows: list[Row] = []
    for k, m, length in BLOCKS:
        if find_spec("pyeclib") is not None:
            rows += isal(k, m, length)
        if find_spec("raptorq") is not None:
            rows += raptorq(k, m, length)
        rows += xor(k, m, length)
        rows += protocol(k, m, length)
    if "--json" in sys.argv[1:]:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'':6} {'code':26} {'block, bytes':16} {'us':>9} {'MB/s':>8} {'of bare':>8}")
    for line in rows:
        share = line["of bare"]
        shown = "" if share is None else f"{share:.0%}"
        print(
            f"{line['what']:6} {line['code']:26} {line['block']:16} {line['us']:9} "
            f"{line['MB/s']:8} {shown:>8}"
        )


if __name__ == "__main__":
    main()

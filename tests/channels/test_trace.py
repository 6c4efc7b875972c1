"""Traces from files: masks, columns, sequence numbers, capacity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import CapacityTrace, ChannelParameterError, GilbertElliott, LossTrace, loss_model
from channels.sequence import losses_of_sequence, mask_of_sequence
from channels.trace import read_loss_trace

MASK = np.array([0, 0, 1, 1, 0, 1, 0], np.bool_)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "0011010"),
        ("a.txt", "00110\n10\n"),
        ("a.csv", "0\n0\n1\n1\n0\n1\n0\n"),
        ("a.csv", "lost\n0\n0\n1\n1\n0\n1\n0\n"),
        ("a.csv", "time,Lost\n0,false\n1,false\n2,true\n3,true\n4,false\n5,true\n6,false\n"),
        ("a.csv", "seq,bytes\n10,5\n11,5\n14,5\n16,5\n"),
        ("a.csv", "65534\n65535\n2\n4\n"),
    ],
)
def test_texts(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert np.array_equal(read_loss_trace(tmp_path / name).mask, MASK)


@pytest.mark.parametrize("values", [MASK, MASK.astype(np.uint8), np.array([20, 21, 24, 26])])
def test_arrays(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    assert np.array_equal(read_loss_trace(tmp_path / "a.npy").mask, MASK)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"", "holds no packets"),
        ("a.csv", b"time,size\n1,2\n", "needs a column named lost or sequence"),
        ("a.csv", b"lost\n0\n2\n", "only 0 and 1"),
        ("a.csv", b"lost\n0\nx\n", r"csv:3: .x. is not a whole number"),
        ("a.csv", b"\xff\xfe\x00", "neither a capture, .npy nor text"),
        ("a.npy", b"not numpy", "not a valid .npy"),
        ("missing.npy", None, "cannot read"),
    ],
)
def test_bad_files(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ChannelParameterError, match=says) as caught:
        read_loss_trace(tmp_path / name)
    assert caught.value.parameter == "path"


def test_objects_and_tables_are_refused(tmp_path):
    for values in (np.array([{}], object), np.zeros((2, 2)), np.array([0.5])):
        np.save(tmp_path / "a.npy", values, allow_pickle=True)
        with pytest.raises(ChannelParameterError, match="path"):
            read_loss_trace(tmp_path / "a.npy")


@given(
    st.lists(st.booleans(), min_size=2, max_size=300),
    st.integers(0, 2**16 - 1),
    st.randoms(use_true_random=False),
)
def test_sequence_numbers_wrap_repeat_and_swap(fates, first, random):
    mask = np.array([False, *fates, False])
    numbers = (first + np.flatnonzero(~mask)).tolist()
    arrived = [n for n in numbers for _ in range(random.choice((1, 1, 2)))]
    for i in range(0, len(arrived) - 1, 2):
        if random.random() < 0.3:
            arrived[i], arrived[i + 1] = arrived[i + 1], arrived[i]
    wrapped = np.array(arrived, np.int64) % (1 << 16)
    assert np.array_equal(mask_of_sequence(wrapped, bits=16), mask)


def test_sequence_numbers_that_are_none():
    with pytest.raises(ChannelParameterError, match="negative"):
        mask_of_sequence(np.array([-1, 2]))
    with pytest.raises(ChannelParameterError, match="span"):
        mask_of_sequence(np.array([0, 1 << 30, 1 << 31]))


def arrived(count, bits, loss, seed=0, first=0):
    """Numbers of `bits` bits that arrived, int64[m], and bool[n], True = lost."""
    lost = GilbertElliott.from_loss(loss, 3).sampler(np.random.default_rng(seed)).mask(count)
    lost[[0, -1]] = False
    return (first + np.flatnonzero(~lost)) % (1 << bits), lost


@pytest.mark.parametrize("bits", [5, 7, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("first", [0, 29])
def test_the_width_of_a_counter_is_found(bits, first):
    numbers, lost = arrived(7 << bits, bits, 0.05, bits, first)
    if bits > 7:  # a packet that is late by two
        numbers[40:43] = numbers[[41, 42, 40]]
    found = losses_of_sequence(numbers)
    assert np.array_equal(found.mask, lost)
    assert f"({bits} bits)" in found.notes[0]
    assert np.array_equal(losses_of_sequence(numbers, bits).mask, lost)


@pytest.mark.parametrize(("first", "second"), [(6000, 5000), (700, 650), (40_000, 17)])
def test_a_counter_that_starts_anew(first, second):
    parts = [arrived(n, 32, 0.02, n)[0] for n in (first, second)]
    found = losses_of_sequence(np.concatenate(parts))
    assert found.mask.size == first + second
    assert abs(found.mask.mean() - 0.02) < 0.02
    assert "start anew 1 times" in found.notes[0]


def test_a_counter_that_starts_anew_far_ahead():
    first, second = (arrived(900, 16, 0.1, n, n)[0] for n in (300, 44_000))
    found = losses_of_sequence(np.concatenate([first, second]))
    assert found.mask.size == 1800 and "start anew" in found.notes[0]


@pytest.mark.parametrize("block", [1, 2, 40])
def test_streams_that_are_mixed_are_refused(block):
    streams = [arrived(4000, 16, 0.05, first, first)[0][:3200] for first in (9, 30_000)]
    mixed = np.stack([s.reshape(-1, block) for s in streams], axis=1).reshape(-1)
    with pytest.raises(ChannelParameterError, match="several streams"):
        losses_of_sequence(mixed)


def test_a_stray_number_is_left_out():
    numbers, lost = arrived(5000, 16, 0.05)
    found = losses_of_sequence(np.insert(numbers, 2000, 60_000))
    assert np.array_equal(found.mask, lost)
    assert "1 numbers far from all others" in found.notes[0]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbflost\r\n0\r\n0\r\n1\r\n1\r\n0\r\n1\r\n0\r\n",
        b"# from a capture\n\n0011010\n",
        b"time;rtp.lost\n0,1;0\n0,2;0\n0,3;1\n0,4;1\n0,5;0\n0,6;1\n0,7;0\n",
        b"frame.time\trtp.seq\n.1\t7\n# gap\n.2\t8\n.5\t11\n.7\t13\n",
        b"0,0,1,1,0,1,0\n",
        b"0.0\n0.0\n1.0\n1e0\n0.0\n1.0\n0.0\n",
        "lost\n0\n0\n1\n1\n0\n1\n0\n".encode("utf-16"),
    ],
)
def test_text_as_programs_write_it(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    assert np.array_equal(read_loss_trace(tmp_path / "a.csv").mask, MASK)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"# one\nseq\n\n1\nx\n", "csv:5: 'x' is not"),
        ("a.csv", b"seq\n1\n" + b"9" * 30, "csv:3: 9+ is too large"),
        ("a.csv", b"seq\n" + b"9" * 9000, "csv:2: 9+"),
        ("a.csv", b"seq\nnan\n", "csv:2: 'nan'"),
        ("a.csv", b"seq\n" + b"x" * 200_000 + b",1\n", "field larger than"),
        ("a.csv", b"a," * 5000, "needs a column named lost"),
        ("a.npy", b"\x93NUMPY\x01\0v\0{'descr':'|b1','fortran_order':False,'shape':(9**15,)}", ""),
    ],
)
def test_files_that_would_break_readers(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ChannelParameterError, match=says) as caught:
        read_loss_trace(tmp_path / name)
    assert caught.value.parameter == "path" and len(str(caught.value)) < 320


def test_the_counter_of_a_trace_in_a_scenario(tmp_path):
    """In three bits 6, 0, 1 goes on (8 packets and two lost); in four it goes back to packets that
    were there."""
    (tmp_path / "a.csv").write_text("seq\n0\n1\n3\n4\n6\n0\n1\n")
    for bits, count in ((3, 10), (4, 7)):
        spec = {"type": "trace", "path": str(tmp_path / "a.csv"), "bits": bits}
        assert len(loss_model(spec).fates) == count
    with pytest.raises(ChannelParameterError, match="does not fit 2 bits"):
        loss_model(spec | {"bits": 2})


def test_replay(tmp_path):
    np.save(tmp_path / "a.npy", MASK)
    spec = {"type": "trace", "path": str(tmp_path / "a.npy"), "start": "first"}
    first = loss_model(spec).sampler(np.random.default_rng(0)).mask(20)
    assert np.array_equal(first, np.resize(MASK, 20))
    random = LossTrace.read(str(tmp_path / "a.npy"))
    starts = {random.sampler(np.random.default_rng(s)).mask(7).tobytes() for s in range(60)}
    assert starts == {np.roll(MASK, -k).tobytes() for k in range(7)}


def test_a_replayed_sample_is_the_sample(tmp_path):
    mask = GilbertElliott.from_loss(0.2, 5).sampler(np.random.default_rng(1)).mask(5000)
    np.save(tmp_path / "a.npy", mask)
    stream = LossTrace.read(str(tmp_path / "a.npy"), "first").sampler(np.random.default_rng(0))
    again = np.concatenate([stream.mask(1700) for _ in range(3)])
    assert np.array_equal(again[:5000], mask)
    assert np.array_equal(again[5000:], mask[:100])


def test_capacity_files(tmp_path):
    file = tmp_path / "12Mbps.trace"
    file.write_text("1\n")
    assert CapacityTrace.read(file).rate_bps == 12e6
    file.write_text("0\n3\n3\n")
    assert CapacityTrace.read(file).opportunities_ms == (0, 3, 3)
    file.write_text("1\nx\n")
    with pytest.raises(ChannelParameterError, match="trace:2: 'x'"):
        CapacityTrace.read(file)
    with pytest.raises(ChannelParameterError, match="cannot read"):
        CapacityTrace.read(tmp_path / "none")

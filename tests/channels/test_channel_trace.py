"""Traces from files: masks, columns, sequence numbers, capacity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import CapacityTrace, ChannelParameterError, GilbertElliott, LossTrace, loss_model
from channels.trace import mask_of_sequence, read_loss_trace

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
    assert np.array_equal(read_loss_trace(tmp_path / name), MASK)


@pytest.mark.parametrize("values", [MASK, MASK.astype(np.uint8), np.array([20, 21, 24, 26])])
def test_arrays(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    assert np.array_equal(read_loss_trace(tmp_path / "a.npy"), MASK)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"", "holds no packets"),
        ("a.csv", b"time,size\n1,2\n", "needs a column named lost or sequence"),
        ("a.csv", b"lost\n0\n2\n", "only 0 and 1"),
        ("a.csv", b"lost\n0\nx\n", "row 3: 'x' is not a whole number"),
        ("a.csv", b"\xff\xfe\x00", "neither .npy nor text"),
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

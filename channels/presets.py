"""Ready channels, each with its source and what in it is taken from there.

A preset is a starting point, not a claim: ``basis`` says which numbers the source states and which
are this project's choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """A named channel.

    Attributes:
        name: as written after ``preset:``.
        summary: one line.
        source: where it comes from.
        basis: what the source states, and what was chosen here.
        channel: plain data for `channels.spec.read_channel`.
    """

    name: str
    summary: str
    source: str
    basis: str
    channel: Mapping[str, object]


_ALL = (
    Preset(
        "burst20",
        "one packet in five lost, in bursts of five: this project's standard test",
        "E. N. Gilbert, Bell System Technical Journal 39 (1960) 1253 (the model)",
        "the numbers are this project's",
        {"loss": {"type": "gilbert", "loss": 0.2, "mean_burst": 5}},
    ),
    Preset(
        "wifi",
        "Wi-Fi without retransmission (broadcast): heavy-tailed bursts, little delay",
        "L. Carvalho, J. Angeja, A. Navarro, 'A new packet loss model of the IEEE 802.11g wireless "
        "network for multimedia communications', IEEE Trans. Consumer Electronics 51 (2005) 809",
        "from the source: lost and received runs are heavy-tailed, and Gilbert-Elliott fits them "
        "less well; chosen: 5% loss, bursts of mean 5.4 and standard deviation about 19 packets, "
        "delay and jitter (typical; no published figure)",
        {
            "loss": {
                "type": "semi_markov",
                "loss": 0.05,
                "mean_burst": 5.4,
                "tail": 1.3,
                "longest": 550,
            },
            "link": {
                "delay_s": 0.002,
                "rate_bps": 20e6,
                "queue_packets": 200,
                "jitter": {"type": "pareto", "mean_s": 0.002, "shape": 2.5},
            },
        },
    ),
    Preset(
        "cellular",
        "a mobile link that hides loss behind retransmission: long, skewed delays, deep buffer",
        "K. Winstein, A. Sivaraman, H. Balakrishnan, 'Stochastic forecasts achieve high throughput "
        "and low delay over cellular networks', USENIX NSDI 2013",
        "from the source: the rate changes dramatically and queues of several seconds build up; "
        "chosen: all numbers (rare loss, deep buffer: typical; no published figure). Replay one "
        "of the paper's capacity traces (capacity: FILE) for real variation",
        {
            "loss": {"type": "gilbert", "loss": 0.002, "mean_burst": 3},
            "link": {
                "delay_s": 0.04,
                "rate_bps": 5e6,
                "queue_bytes": 1250000,
                "jitter": {"type": "pareto", "mean_s": 0.01, "shape": 2.2},
            },
        },
    ),
    Preset(
        "satellite",
        "low-orbit satellite at about 100 packets/s: short outages at handovers, some lone losses",
        "N. Mohan et al., 'A multifaceted look at Starlink performance', WWW 2024 "
        "(arXiv:2310.09242); M. M. Kassem et al., 'A browser-side view of Starlink connectivity', "
        "IMC 2022",
        "from the first: links are reconfigured every 15 s; from the second: bursts of up to half "
        "the packets lost, which seem to go with handovers; chosen: outages of 0.3 s, 0.3% other "
        "loss, delay, jitter and rate (typical; no published figure)",
        {
            "loss": {
                "type": "any",
                "of": [
                    {"type": "outages", "up": 1470, "down": 30, "spread": 0.2},
                    {"type": "gilbert", "loss": 0.003, "mean_burst": 2},
                ],
            },
            "link": {
                "delay_s": 0.025,
                "rate_bps": 10e6,
                "queue_packets": 500,
                "jitter": {"type": "pareto", "mean_s": 0.005, "shape": 3.0},
            },
        },
    ),
    Preset(
        "geostationary",
        "geostationary satellite: a quarter of a second one way, rare bit errors",
        "M. Allman, D. Glover, L. Sanchez, RFC 2488 (1999), section 2",
        "from the source: 279.0 ms one way for stations at the edge of the satellite's view; "
        "chosen: rate, queue and bit errors",
        {"link": {"delay_s": 0.279, "rate_bps": 2e6, "queue_packets": 400, "bit_error": 1e-7}},
    ),
    Preset(
        "lora",
        "a LoRa sender some kilometres away: slow, lossy, small packets (222 bytes at most)",
        "LoRa Alliance, 'RP002 LoRaWAN regional parameters', EU863-870 data rate 5; "
        "J. Petajajarvi et al., 'On the coverage of LPWANs: range evaluation and channel "
        "attenuation model for LoRa technology', ITST 2015",
        "from the first: 5470 bit/s, and 222 bytes of payload where a repeater may take part (242 "
        "where none does); from the second: a range of over 15 km on the ground, measured from a "
        "car at the slowest data rate; chosen: 15% loss, independent (typical; no published "
        "figure at this data rate)",
        {
            "loss": {"type": "uniform", "loss": 0.15},
            "link": {"delay_s": 0.001, "rate_bps": 5470},
        },
    ),
    Preset(
        "congested",
        "a 1 Mbit/s bottleneck with 300 ms of buffer: losses come from your own sending rate",
        "Z. Sarker, V. Singh, X. Zhu, M. Ramalho, RFC 8867 (2021), sections 4 and 5",
        "from the source: 1 Mbit/s, drop tail, 300 ms of queue, 50 ms one way, no other loss; "
        "chosen: the law of the jitter, kept below the source's 30 ms",
        {
            "link": {
                "delay_s": 0.05,
                "rate_bps": 1e6,
                "queue_bytes": 37500,
                "jitter": {"type": "normal", "std_s": 0.005},
            }
        },
    ),
)

PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}
"""Every preset by name."""

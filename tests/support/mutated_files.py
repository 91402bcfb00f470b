"""Text files with accidents, for tests that a reader takes them or names what is wrong."""

import random


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The same bytes with one to three accidents of the kind that happens to files."""
    pieces = b"nan inf -5 -1 8 1e999 , \n \r \0 \xff 0x10 1_0 \xef\xbb\xbf ../ --1 / + \xc2\xa0 \x0b".split(
        b" "
    )
    pieces += [b" ", b"9" * 50, b'"']
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([0, 0, 1, 2, 30]))
        match rng.randrange(4):
            case 0:
                data = data[:at] + rng.choice(pieces) + data[end:]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 3:
                data = data[:at] if rng.random() < 0.3 else data[:at] + data[max(0, at - 20) : at] + data[at:]
    return data

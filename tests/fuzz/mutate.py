"""Damages bytes as disks, downloads and attackers do."""

import random

# Tokens that break parsers: extreme numbers, other types, separators, ends, parts of headers.
TOKENS = (
    *(b"-1", b"0", b"255", b"256", b"4294967295", b"18446744073709551615", b"1e309", b"-1e308"),
    *(b"nan", b"inf", b"+7", b"0x7", b"0_7", b"\xd9\xa3", b"3.0000000e+00", b"9" * 400),
    *(b"", b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n", b" ", b"\t"),
    *(b",", b'"', b"'", b"../", b"/", b"\\", b"..\\", b"\x1b[31m", b"%s%n", b"{}", b"[[[[["),
    *(b"null", b"true", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\x89PNG", b"II*\0", b"IHDR"),
    *(b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\0", b"\0" * 600),
)


def mutate(seed: bytes, rng: random.Random) -> bytes:
    """Returns the seed with one to six random edits; most keep the length and so the offsets."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 6)):
        # Headers and directories are at the ends: half of the edits are made there.
        size = max(1, len(data))
        near = min(size, 100)
        place = rng.choice(
            (rng.randrange(size), rng.randrange(size), rng.randrange(near), -rng.randint(1, near))
        )
        place %= size
        token = rng.choice(TOKENS)
        length = rng.randint(1, 40)
        match rng.randrange(8):
            case 0 if data:
                data[place] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[place] = rng.randrange(256)
            case 2:
                data[place : place + len(token)] = token
            case 3:
                data[place:place] = token
            case 4:
                del data[place : place + length]
            case 5:
                data[place : place + length] = rng.randbytes(length)
            case 6:
                data += data[place : place + length]
            case 7 if rng.random() < 0.3:
                del data[place:]
    return bytes(data)

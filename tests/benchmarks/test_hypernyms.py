"""Hypernyms are read from lines in WordNet's format."""

from __future__ import annotations

from benchmarks.hypernyms import first_hypernyms

LINES = """\
00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which exists
00001930 03 n 02 animal 0 beast 0 002 ~ 00002000 n 0000 @ 00001740 n 0000 | one that moves
00002000 03 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 1 003 + 00001740 v 0101 @ 00001930 n 0000 @ 00001740 n 0000 | @
00002100 15 n 01 Rex 0 001 @i 00001930 n 0000 | one dog
00001740 29 v 01 breathe 0 001 @ 00001930 v 0000 01 + 02 00 | draw air | let it out
""".splitlines()


def test_the_first_direct_hypernym_of_nouns() -> None:
    # the third has ten words (hexadecimal 0a) and two hypernyms; the fourth is an instance of a class; the last is a
    # verb whose offset is a noun's too
    assert first_hypernyms(LINES).tolist() == [-1, 0, 1, 1, -1]

"""CBOR as FORMAT.md section 1 reads it: size, encoding, fields. The first fault is the answer."""

import re
from dataclasses import dataclass

DEPTH_MAX = 6
ITEMS_MAX = 4096


class Fault(Exception):
    """A structure is refused; the code says why."""

    def __init__(self, code: str):
        super().__init__(code)
        self.code = code


def require(holds: bool, code: str) -> None:
    if not holds:
        raise Fault(code)


@dataclass
class Tag:
    number: int
    item: object


@dataclass
class Map:
    pairs: list


def decode(data: bytes, most: int):
    """The one item in `data`, at most `most` bytes of it, in deterministic encoding."""
    require(len(data) <= most, "too_large")
    walk = _Walk(data)
    item = walk.item(0)
    require(walk.at == len(data), "trailing_bytes")
    return item


class _Walk:
    def __init__(self, data: bytes):
        self.data, self.at, self.items = data, 0, 0

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        require(len(taken) == count, "truncated")
        self.at += count
        return taken

    def head(self):
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info
        require(info != 31, "not_deterministic")
        require(info < 28, "wrong_type")
        count = 1 << (info - 24)
        value = int.from_bytes(self.take(count), "big")
        least = 24 if count == 1 else 1 << (8 * count // 2)
        require(value >= least, "not_deterministic")
        return major, value

    def item(self, depth: int):
        require(depth <= DEPTH_MAX, "too_deep")
        self.items += 1
        require(self.items <= ITEMS_MAX, "too_many_items")
        major, value = self.head()
        if major == 0:
            return value
        if major == 1:
            return -1 - value
        if major == 2:
            return self.take(value)
        if major == 3:
            try:
                return self.take(value).decode("utf-8")
            except UnicodeDecodeError:
                raise Fault("wrong_type") from None
        if major == 4:
            # A huge length ends with the bytes, long before memory does.
            items = []
            for _ in range(value):
                items.append(self.item(depth + 1))
            return items
        if major == 5:
            pairs, before = [], b""
            for _ in range(value):
                start = self.at
                key = self.item(depth + 1)
                encoded = self.data[start : self.at]
                require(encoded > before, "not_deterministic")
                before = encoded
                pairs.append((key, self.item(depth + 1)))
            return Map(pairs)
        if major == 6:
            return Tag(value, self.item(depth + 1))
        raise Fault("wrong_type")


class Fields:
    """The pairs of a map with integer keys, read in their order."""

    def __init__(self, item):
        require(isinstance(item, Map), "wrong_type")
        self.pairs = list(item.pairs)

    def has(self, key: int) -> bool:
        return bool(self.pairs) and isinstance(self.pairs[0][0], int) and self.pairs[0][0] == key

    def take(self, key: int):
        require(self.has(key), "wrong_field")
        return self.pairs.pop(0)[1]

    def end(self) -> None:
        require(not self.pairs, "wrong_field")


def uint(item) -> int:
    require(isinstance(item, int) and 0 <= item < 1 << 64, "wrong_type")
    return item


def integer(item) -> int:
    require(isinstance(item, int) and -(1 << 63) <= item < 1 << 63, "wrong_type")
    return item


def string(item, length: int | None = None) -> bytes:
    require(isinstance(item, bytes), "wrong_type")
    require(length is None or len(item) == length, "wrong_value")
    return item


def text(item, most: int) -> str:
    require(isinstance(item, str), "wrong_type")
    require(0 < len(item.encode()) <= most, "wrong_value")
    return item


def name(item) -> str:
    require(isinstance(item, str), "wrong_type")
    require(re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,31}", item) is not None, "wrong_value")
    return item


def listed(item, most: int) -> list:
    require(isinstance(item, list), "wrong_type")
    require(len(item) <= most, "wrong_value")
    return item


def fixed(item, length: int) -> list:
    require(isinstance(item, list), "wrong_type")
    require(len(item) == length, "wrong_field")
    return item


def tagged(item, number: int):
    require(isinstance(item, Tag) and item.number == number, "wrong_type")
    return item.item


def choice(item, values):
    require(uint(item) in values, "wrong_value")
    return item

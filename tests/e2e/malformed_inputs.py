"""Malformed bodies, headers, ids, values and requests."""

from tests.e2e.raw_http import Header

JSON, FORM = "application/json", "application/x-www-form-urlencoded"

# percent-encoded, for use in a path
MALFORMED_IDS = (
    "", "x", "0", "-1", "null", "undefined", "%2e%2e%2f", "..%2F..%2Fetc%2Fpasswd", "a%2Fb", "%00",
    "a%00b", "%ff", "%C0%AF", "%ED%A0%80", "%", "%zz", "%25", "%250a", "%0d%0aX-Evil:%201", "*",
    "'%20OR%20'1'='1", "1;DROP%20TABLE%20users", "{}", "[]", "%F0%9F%98%80", "a" * 7_000,
    "{01890000-0000-7000-8000-000000000000}", "urn:uuid:01890000-0000-7000-8000-000000000000",
    "01890000000070008000000000000000", "01890000-0000-7000-8000-00000000000g",
    "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "01890000-0000-7000-8000-0000000000001", "%EF%BC%90" * 36, ";a=b", "me;x", "~", "%7Emh",
)  # fmt: skip

# percent-encoded, for use in a query
UNUSUAL_VALUES = (
    "", "0", "-1", "1", "101", "1e9", "1.0", "x", "NaN", "9" * 30, "%2B5", "0x10", "٣", "true",
    "null", "%00", "%ff", "%ED%A0%80", "a" * 1_500, "name;DROP%20TABLE%20product", "price%20desc",
    "-created_at,name", "--", "'", "%27%20OR%201=1--", "%25", "%5C", "_", "%E2%80%AE",
    "%F0%9F%98%80",
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00%2B23:59", "infinity", "2026-13-45",
    "2026-01-01", "2026-01-01T00:00:00", "1", "99999999999", "MH-99999999999999999999", "MH-",
    "MH-%D9%A3", "%7Bx%7D", "00000000-0000-0000-0000-000000000000", "EUR", "a%26b=c",
)  # fmt: skip


def invalid_json(good: bytes) -> dict[str, bytes]:
    first = good.partition(b",")[0].lstrip(b"{").rstrip(b"}")
    deep = 100_000
    return {
        "empty": b"", "null": b"null", "list": b"[]", "list of null": b"[null]", "one": b"1",
        "text": b'"x"', "true": b"true", "open": b"{", "close": b"}", "crossed": b"{]",
        "quotes": b"{'a':1}", "comma": b'{"a":1,}', "NaN": b'{"a":NaN}', "inf": b'{"a":-Infinity}',
        "comment": b"{/**/}", "5000 digits": b'{"a":' + b"9" * 5000 + b"}",
        "raw NUL": b'{"a":"\x00"}', "NUL": b'{"a":"\\u0000"}', "NUL name": b'{"\\u0000":1}',
        "surrogate": b'{"a":"\\ud800"}', "surrogate name": b'{"\\ud800":1}',
        "half escape": b'{"a":"\\u12"}', "not UTF-8": b'{"a":"\xff\xfe"}', "cut": b'{"a":"\xc3',
        "overlong": b'{"a":"\xc0\xaf"}', "CESU": b'{"a":"\xed\xa0\x80"}',
        "UTF-16": good.decode().encode("utf-16"), "UTF-32": good.decode().encode("utf-32"),
        "BOM": b"\xef\xbb\xbf" + good, "twice": good + good, "tail": good + b"x",
        "a name twice": b"{" + first + b"," + good[1:],
        "65 lists": b"[" * 65 + b"]" * 65, "65 objects": b'{"a":' * 65 + b"1" + b"}" * 65,
        "65 in a field": b'{"lines":' + b"[" * 65 + b"]" * 65 + b"}",
        "100000 lists": b"[" * deep + b"]" * deep, "100000 open": b"[" * deep,
        "100000 objects": b'{"a":' * deep + b"1" + b"}" * deep,
        "unknown field": good[:-1] + b',"surprise":1}', "prototype": b'{"__proto__":{"a":1}}',
        "50000 fields": b"{" + b",".join(b'"f%d":%d' % (n, n) for n in range(50_000)) + b"}",
        "a form": b"a=1&b=2",
        "multipart": b"--x\r\ncontent-disposition: form-data\r\n\r\n1\r\n--x--",
        "XML": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a/>",
    }  # fmt: skip


def invalid_forms(good: bytes) -> dict[str, bytes]:
    return {
        "empty": b"", "JSON": b'{"username":"a","password":"b"}', "ampersands": b"&" * 10_000,
        "twice": good + b"&" + good, "one name": b"username", "no value": b"username=&password=",
        "NUL": b"username=%00&password=%00", "raw NUL": b"username=\x00&password=\x00",
        "not UTF-8": b"username=%ff%fe&password=%c3", "surrogate": b"username=%ED%A0%80&password=x",
        "raw bytes": b"username=\xff\xfe&password=\xfd", "bad escape": b"username=%zz&password=%",
        "100000 fields": b"&".join(b"f%d=1" % number for number in range(100_000)),
        "long name": b"username=" + b"a" * 500_000 + b"&password=x",
        "long password": b"username=a&password=" + b"a" * 500_000,
        "other grant": b"grant_type=client_credentials&scope=users:manage",
        "refresh garbage": b"grant_type=refresh_token&refresh_token=%00%ff" + b"A" * 150,
        "brackets": b"username[]=a&password[0]=b", "semicolons": b"username=a;password=b",
        "MFA": b"grant_type=password&username[$ne]=x&password[$ne]=x",
    }  # fmt: skip


def wrong_content_types(good: str) -> list[bytes]:
    other = FORM if good == JSON else JSON
    return [
        b"text/plain", other.encode(), b"multipart/form-data; boundary=x", b"application/xml",
        b"multipart/form-data", good.encode() + b"; charset=utf-16", good.encode() + b"; charset=",
        b";;;", b"application/", b"*/*", good.encode() + b", text/html", b"\xff\xfe",
        good.encode() + b"; a=" + b"x" * 5_000, b"application/json-patch",
    ]  # fmt: skip


def unusual_headers(long: bytes) -> list[Header]:
    return [
        (b"X-Request-ID", b"short"), (b"X-Request-ID", long), (b"X-Request-ID", b"a b;<script>"),
        (b"X-Request-ID", b"\xff\xfe" * 8), (b"X-Request-ID", b'"}\\u000a{"evil":1'),
        (b"traceparent", b"garbage"), (b"traceparent", long), (b"traceparent", b"\xff" * 55),
        (b"traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"),
        (b"traceparent", b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-more"),
        (b"X-Forwarded-For", b"1.2.3.4, ::1, garbage"), (b"X-Forwarded-For", b"\xff"),
        (b"Forwarded", b"for=evil;proto=gopher"), (b"X-Forwarded-Proto", b"gopher"),
        (b"Host", b"evil.example"), (b"Host", b"\xff"), (b"Host", long), (b"Cookie", long),
        (b"User-Agent", b"\xff\xfe\r\tx"[:2] + b"' OR 1=1"), (b"User-Agent", long),
        (b"Accept", b"\xff"), (b"Accept", b"application/xml"), (b"Accept-Encoding", b"gzip;q=NaN"),
        (b"Content-Encoding", b"gzip"), (b"Expect", b"200-maybe"), (b"Range", b"bytes=-1-,0-9,9-0"),
        (b"If-None-Match", b"*"), (b"If-None-Match", long), (b"If-None-Match", b'"\xff'),
        (b"If-Modified-Since", b"yesterday"), (b"Origin", b"null"), (b"Max-Forwards", b"-1"),
        (b"X-HTTP-Method-Override", b"DELETE"), (b"X-Original-URL", b"/stats"),
        (b"Upgrade", b"h2c"), (b"Upgrade", b"websocket"), (b"TE", b"trailers, chunked;q=x"),
    ]  # fmt: skip


def malformed_requests() -> dict[str, bytes]:
    """Map names to requests that are invalid or unusual HTTP."""
    end = b" HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
    return {
        "nothing": b"\r\n\r\n\r\n\r\n", "noise": bytes(range(256)) * 4 + b"\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/9": b"GET / HTTP/9.9\r\n\r\n",
        "no version": b"GET /\r\n\r\n", "HTTP/1.0": b"GET /stats HTTP/1.0\r\n\r\n",
        "lower case": b"get /" + end, "no method": b" /" + end, "evil method": b"EVIL /" + end,
        "no target": b"GET" + end, "spaces": b"GET  /  x" + end, "star": b"OPTIONS *" + end,
        "star for GET": b"GET *" + end, "no slash": b"GET users" + end,
        "absolute": b"GET http://evil.example/stats" + end,
        "proxy": b"CONNECT evil.example:443" + end,
        "absolute, no path": b"GET http://evil.example" + end, "empty query": b"GET ?" + end,
        "raw bytes": b"GET /\xff\xfe" + end, "UTF-8": "GET /é".encode() + end,
        "NUL": b"GET /\x00" + end, "tab": b"GET\t/\tHTTP/1.1\r\n\r\n",
        "fragment": b"GET /users#x" + end,
        "no host": b"GET /stats HTTP/1.1\r\nConnection: close\r\n\r\n",
        "two hosts": b"GET /stats HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        "long target": b"GET /" + b"a" * 100_000 + end, "pipelined": (b"GET /health" + end) * 3,
        "smuggled": b"POST /users HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n"
        b"Content-Length: 4\r\nConnection: close\r\n\r\n0\r\n\r\n",
    }  # fmt: skip

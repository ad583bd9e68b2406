"""Which addresses may be asked for and connected to: tables, without a network."""

from __future__ import annotations

import ipaddress

import pytest

from vidal.crawl.guard import RefusedError, Rules, check_url, is_permitted

CLOSED = Rules()
LOOPBACK = Rules(allow_addresses=("127.0.0.1",))

GOOD_URLS = [
    "http://example.com/a.mp4", "https://example.com:8443/a?b=c#d", "http://8.8.8.8/", "http://[2606:4700::1111]/",
    "https://пример.рф/видео", "https://xn--e1afmkfd.xn--p1ai/", "http://a_b.example.com/", "http://example.com./",
]  # fmt: skip

BAD_URLS = [
    "ftp://example.com/a", "file:///etc/passwd", "gopher://example.com/", "data:video/mp4;base64,AAAA", "//example.com/a",
    "example.com", "", "http://", "http:///a", "http://user@example.com/", "http://user:pass@example.com/", "http://@127.0.0.1/",
    "http://example.com:0/", "http://example.com:99999/", "http://example.com:port/", "http://exam ple.com/",
    "http://example.com\\@127.0.0.1/", "http://example.com\r\nHost: x/", "http://example.com/\x00",
    "http://127.0.0.1/", "http://127.1/", "http://127.0.1/", "http://0177.0.0.1/", "http://0x7f.0.0.1/", "http://0x7f000001/",
    "http://2130706433/", "http://017700000001/", "http://0/", "http://0.0.0.0/", "http://127.0.0.1./", "http://00000127.0.0.1/",
    "http://１２７.0.0.1/", "http://127。0。0。1/", "http://①②⑦.0.0.1/", "http://%31%32%37.0.0.1/", "http://127.0.0.1%2f@example.com/",
    "http://256.256.256.256/", "http://1.2.3/", "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:8.8.8.8]/", "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::808:808]/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/",
    "http://[::127.0.0.1]/", "http://localhost/", "http://LOCALHOST./", "http://a.localhost/", "http://printer.local/",
    "http://metadata.google.internal/", "http://router/", "http://nas.lan/", "http://x.home.arpa/", "http://-a.example.com/",
    "http://a..example.com/", f"http://{'a' * 64}.com/",
]  # fmt: skip


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_public_address_may_be_asked_for(url: str) -> None:
    assert check_url(url, CLOSED).hostname


@pytest.mark.parametrize("url", BAD_URLS)
def test_other_addresses_are_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(RefusedError):
        check_url(url, CLOSED)


PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
NOT_PUBLIC = [
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "168.63.129.16", "::ffff:168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1", "::", "::1", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::",
    "2002:808:808::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
    "fec0::1", "ff02::1", "ff0e::1", "100::1", "3fff::1", "5f00::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_hosts_of_the_internet_are_spoken_to(address: str) -> None:
    assert is_permitted(ipaddress.ip_address(address), CLOSED)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_no_other_address_is_spoken_to(address: str) -> None:
    assert not is_permitted(ipaddress.ip_address(address), CLOSED)


@pytest.mark.parametrize("address", [address for address in NOT_PUBLIC if address != "127.0.0.1"])
def test_an_opened_address_opens_no_other(address: str) -> None:
    assert not is_permitted(ipaddress.ip_address(address), LOOPBACK)


@pytest.mark.parametrize(
    ("opened", "address", "is_open"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.0/30", "127.0.0.3", True),
        ("127.0.0.0/30", "127.0.0.4", False),
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
        ("fd00::/8", "fd12::1", True),
        ("10.1.0.0/16", "::ffff:10.1.2.3", False),
    ],
)
def test_settings_open_exactly_what_they_name(opened: str, address: str, is_open: bool) -> None:
    assert is_permitted(ipaddress.ip_address(address), Rules(allow_addresses=(opened,))) is is_open


def test_odd_spellings_of_an_opened_address_stay_refused() -> None:
    assert check_url("http://127.0.0.1:8000/", LOOPBACK).port == 8000
    for host in ("127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "[::ffff:127.0.0.1]", "127.0.0.2"):
        with pytest.raises(RefusedError):
            check_url(f"http://{host}/", LOOPBACK)


@pytest.mark.parametrize(
    ("rules", "url", "is_good"),
    [
        (Rules(allow_hosts=("example.com",)), "http://example.com/", True),
        (Rules(allow_hosts=("example.com",)), "http://WWW.Example.com./", True),
        (Rules(allow_hosts=("example.com",)), "http://notexample.com/", False),
        (Rules(allow_hosts=("example.com",)), "http://example.com.evil.org/", False),
        (Rules(deny_hosts=("example.com",)), "http://cdn.example.com/", False),
        (Rules(deny_hosts=("example.com",)), "http://example.org/", True),
        (Rules(allow_hosts=("example.com",), deny_hosts=("bad.example.com",)), "http://x.bad.example.com/", False),
    ],
)
def test_host_rules_hold_for_a_host_and_those_under_it(rules: Rules, url: str, is_good: bool) -> None:
    if is_good:
        check_url(url, rules)
    else:
        with pytest.raises(RefusedError):
            check_url(url, rules)

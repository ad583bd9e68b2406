"""Restricts what the fetching child may connect to: public addresses, and those that the settings allow.

The check is made at the connection, on the address that the kernel is given: redirects, embedded players, DNS rebinding
and the behaviour of any library all end there. An audit hook cannot be removed, so it is for a process of its own.

    install()                                     # once, before anything that has sockets is imported
    set_rules(Rules(allow_addresses=("127.0.0.1",)))
    check_url("http://2130706433/")               # RefusedError: an obfuscated address
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

from vidal.errors import ClipError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NEVER_V6 = tuple(
    ipaddress.IPv6Network(network)
    # v4-compatible, local NAT64, Teredo, ORCHID, documentation, 6to4, dummy, SRv6, site-local
    for network in ("::/96", "64:ff9b:1::/48", "2001::/23", "2001:db8::/32", "2002::/16", "100::/64", "5f00::/16",
                    "3fff::/20", "fec0::/10")
)  # fmt: skip
_NEVER_V4 = tuple(
    ipaddress.IPv4Network(network)
    # 6to4 relays, protocol assignments, Azure's own services to its machines, which look public and are not
    for network in ("192.88.99.0/24", "192.0.0.0/24", "168.63.129.16/32")
)

_LOCAL_NAMES = ("localhost", "local", "internal", "localdomain", "lan", "home", "corp", "intranet", "private")
_LOCAL_ENDS = (".home.arpa", ".in-addr.arpa", ".ip6.arpa")
# An underscore is against the rules for host names, but such names resolve and are in use.
_UNCLEAR = re.compile(r"[\x00-\x20\x7f\\]")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


class RefusedError(ClipError):
    """A connection, an address or an operation that the rules do not allow: the clip fails as ``ssrf``.

    It is no `OSError`, so that no library treats it as a network error and tries the next address.
    """

    def __init__(self, detail: str) -> None:
        super().__init__("ssrf", detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is allowed besides the public internet, and what is denied although it is public."""

    allow_addresses: tuple[str, ...] = ()
    """Addresses and networks, such as ``127.0.0.1`` or ``10.1.0.0/16``."""
    allow_hosts: tuple[str, ...] = ()
    """If any: only these hosts and their subdomains."""
    deny_hosts: tuple[str, ...] = ()
    """Neither these hosts nor their subdomains."""
    proxy: tuple[str, int] | None = None
    """Host and port of a proxy; with one, nothing else may be connected to."""
    program: str = ""
    """Path of the one program that may be started, with the limits of `vidal.process.Child`."""
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = field(init=False)

    def __post_init__(self) -> None:
        networks = tuple(ipaddress.ip_network(text, strict=False) for text in self.allow_addresses)
        object.__setattr__(self, "networks", networks)


def is_permitted(address: Address, rules: Rules) -> bool:
    """Whether an address may be connected to; an allowed network covers only addresses of its own IP version."""
    # An address with a scope is a neighbour on one interface.
    if getattr(address, "scope_id", None) is not None:
        return False
    if any(address in network for network in rules.networks if network.version == address.version):
        return True
    return is_public(address)


def is_public(address: Address) -> bool:
    """Whether it is the public address of one host; an IPv4 address inside an IPv6 one is what counts."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None)
        if inner is not None:
            return is_public(inner)
        if any(address in network for network in _NEVER_V6):
            return False
    elif any(address in network for network in _NEVER_V4):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def check_url(url: str, rules: Rules, *, is_first: bool = True) -> SplitResult:
    """The parts of a URL that may be requested; raises `RefusedError` for any other. Nothing is resolved.

    ``is_first`` applies `Rules.allow_hosts`, which restricts where clips come from and not the servers on which a
    platform keeps its media.
    """
    # Parsers disagree about these: the host that is checked could differ from the one that is asked.
    if _UNCLEAR.search(url):
        raise RefusedError("the address has spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RefusedError(f"not an address: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise RefusedError(f"{parts.scheme or 'no scheme'}: only http and https are spoken")
    # Nor do they agree on which side of an @ the host is.
    if "@" in parts.netloc:
        raise RefusedError("the address has a user name in it")
    if not host or port == 0:
        raise RefusedError("the address names no host, or port 0")
    check_host(host, rules, is_literal_v6="[" in parts.netloc, is_first=is_first)
    return parts


@lru_cache(256)
def check_host(host: str, rules: Rules, *, is_literal_v6: bool = False, is_first: bool = False) -> None:
    """Raise `RefusedError` for a host that the rules deny, that is no public name, or that obfuscates an address."""
    name = host.rstrip(".").lower() if not is_literal_v6 else host.lower()
    address: Address | None = None
    try:
        is_v6 = is_literal_v6 or ":" in name
        address = ipaddress.IPv6Address(name) if is_v6 else ipaddress.IPv4Address(name)
    except ValueError:
        if is_v6:
            raise RefusedError("not an IPv6 address") from None
    if address is None:
        _check_name(name, rules)
    elif not is_permitted(address, rules):
        raise RefusedError(f"{address} is not a public address")
    elif isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped is not None or address in _NAT64):
        # A resolver may return these for a public host; in a URL they are an obfuscation.
        raise RefusedError(f"{address} hides an IPv4 address")
    if any(_is_under(name, denied) for denied in rules.deny_hosts):
        raise RefusedError(f"{name} is in deny_hosts")
    if is_first and rules.allow_hosts and not any(_is_under(name, allowed) for allowed in rules.allow_hosts):
        raise RefusedError(f"{name} is not in allow_hosts")


def _check_name(name: str, rules: Rules) -> None:
    # As IDNA will do it later: full-width digits and dots are otherwise an address that nothing here has checked.
    plain = unicodedata.normalize("NFKC", name).replace("。", ".").rstrip(".")
    if _reads_as_number(plain):
        raise RefusedError(f"{name!r} is an address written in an odd way")
    try:
        ascii_name = plain if plain.isascii() else plain.encode("idna").decode("ascii")
    except UnicodeError:
        raise RefusedError(f"{name!r} is not a host name") from None
    labels = ascii_name.split(".")
    if len(ascii_name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise RefusedError(f"{name!r} is not a host name")
    is_local = len(labels) == 1 or labels[-1] in _LOCAL_NAMES or ascii_name.endswith(_LOCAL_ENDS)
    # Where the settings allow some address, a local name may resolve to it: the check at the connection decides.
    if is_local and not rules.networks:
        raise RefusedError(f"{name!r} is a name of the local network")


def _reads_as_number(name: str) -> bool:
    """Whether the C library would parse it as an IPv4 address: ``0x7f.1``, ``2130706433``, ``0177.0.0.1``."""
    try:
        socket.inet_aton(name)
    except (OSError, ValueError):
        # To browsers, and libraries that read URLs as they do, a name is an IPv4 address if its last part is a number.
        return bool(re.fullmatch(r"(?:0x[0-9a-f]*|\d+)", name.rpartition(".")[2]))
    return True


def _is_under(name: str, domain: str) -> bool:
    domain = domain.lower().strip(".")
    return name == domain or name.endswith(f".{domain}")


@dataclass(slots=True)
class _State:
    rules: Rules = field(default_factory=Rules)
    proxy_addresses: frozenset[tuple[str, int]] = frozenset()
    is_resolving_proxy: bool = False
    folders: tuple[str, ...] = ()
    refused: list[str] = field(default_factory=list)


_state = _State()


def set_rules(rules: Rules, folders: tuple[str, ...] = ()) -> None:
    """Set the rules and the only folders in which files may be written, and forget earlier refusals."""
    _state.refused = []
    _state.folders = tuple(os.path.realpath(folder) + os.sep for folder in folders)
    # Mostly those of the ask before, and resolving a proxy's name costs a query.
    if rules == _state.rules:
        return
    addresses: set[tuple[str, int]] = set()
    if rules.proxy is not None:
        host, port = rules.proxy
        _state.is_resolving_proxy = True
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        finally:
            _state.is_resolving_proxy = False
        addresses = {(str(address[0]), port) for *_, address in answers}
    _state.rules, _state.proxy_addresses = rules, frozenset(addresses)


def refusals() -> list[str]:
    """The refusals since the rules were set, whatever became of their exceptions."""
    return list(_state.refused)


def install() -> None:
    """Install the audit hook in this process; it cannot be removed."""
    sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if check := _CHECKS.get(event):
        try:
            check(args)
        except RefusedError as refusal:
            _state.refused.append(refusal.detail)
            raise


def _on_connect(args: tuple[Any, ...]) -> None:
    """``connect``, ``sendto`` and ``sendmsg``: the address as the kernel gets it."""
    sock, target = args
    # `sendmsg` on a connected socket, whose address was seen when it was connected.
    if target is None:
        return
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(target, tuple):
        raise RefusedError(f"a socket of family {int(sock.family)}")
    host, port = target[0], target[1]
    try:
        # A name given here would be resolved inside the call, out of sight; every client resolves it before.
        address = ipaddress.ip_address(host)
    except ValueError:
        raise RefusedError(f"a connection to {str(host)[:80]!r}, which is not a plain address") from None
    if len(target) > 3 and target[3]:
        raise RefusedError(f"{address} has a scope")
    if _state.proxy_addresses:
        if (str(address), port) not in _state.proxy_addresses:
            raise RefusedError(f"{address} is not the proxy")
    elif not is_permitted(address, _state.rules):
        raise RefusedError(f"{address} is not a public address")


def _on_resolve(args: tuple[Any, ...]) -> None:
    # getaddrinfo takes no host for this machine.
    if args[0] is None:
        raise RefusedError("no host to resolve")
    host = args[0].decode("ascii", "replace") if isinstance(args[0], bytes) else str(args[0])
    # The proxy is the user's own choice, and may be in the local network.
    if _state.is_resolving_proxy or (_state.rules.proxy is not None and host == _state.rules.proxy[0]):
        return
    check_host(host, _state.rules, is_literal_v6=":" in host)


def _on_bind(args: tuple[Any, ...]) -> None:
    sock, target = args
    # A client binds port 0; any other port is a server's.
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or target[1] != 0:
        raise RefusedError("nothing listens here")


def _on_socket(args: tuple[Any, ...]) -> None:
    # -1: made of a descriptor, and Python asks the kernel for its family afterwards.
    _, family, kind, _ = args
    if family not in (-1, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or kind == socket.SOCK_RAW:
        raise RefusedError(f"a socket of family {int(family)}")


def _on_url(args: tuple[Any, ...]) -> None:
    """Every request of urllib's, redirects included; a ``data:`` URL sends none."""
    url = str(args[0])
    if not url.startswith("data:"):
        check_url(url, _state.rules, is_first=False)


def _on_open(args: tuple[Any, ...]) -> None:
    path, mode, flags = args
    writes = (isinstance(mode, str) and any(c in mode for c in "wax+")) or (
        isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    )
    # A descriptor was checked when its path was opened.
    if writes and not isinstance(path, int):
        _check_folder(path)


def _on_change(args: tuple[Any, ...]) -> None:
    for path in args[:2]:
        if isinstance(path, (str, bytes, os.PathLike)):
            _check_folder(path)


def _check_folder(path: Any) -> None:
    where = os.path.realpath(os.fsdecode(path))
    # With the separator: the folder `clip` must not admit `clip-2`.
    if _state.folders and where != os.devnull and not (where + os.sep).startswith(_state.folders):
        raise RefusedError("a file outside the clip's folder")


def _on_program(args: tuple[Any, ...]) -> None:
    # To libraries, it looks as if the program were not installed.
    raise FileNotFoundError("no program is started here")


def _on_popen(args: tuple[Any, ...]) -> None:
    words = [os.fsdecode(word) for word in args[1]] if isinstance(args[1], (list, tuple)) else []
    program = _state.rules.program
    before = words[: words.index(program)] if program and program in words else None
    # What `vidal.process.Child` puts before a program: two tools of util-linux, their options, and the signal of one.
    launchers = [word for word in before or () if not word.startswith("-") and word != "KILL"]
    if before is None or not all(re.fullmatch(r"(?:/usr(?:/local)?)?/bin/(?:prlimit|setpriv)", w) for w in launchers):
        _on_program(args)


_CHECKS: dict[str, Callable[[tuple[Any, ...]], None]] = {
    "socket.connect": _on_connect,
    "socket.sendto": _on_connect,
    "socket.sendmsg": _on_connect,
    "socket.getaddrinfo": _on_resolve,
    "socket.gethostbyname": _on_resolve,
    "socket.bind": _on_bind,
    "socket.__new__": _on_socket,
    "urllib.Request": _on_url,
    "open": _on_open,
    "os.rename": _on_change,
    "os.link": _on_change,
    "os.symlink": _on_change,
    "os.mkdir": _on_change,
    "os.remove": _on_change,
    "os.truncate": _on_change,
    "shutil.rmtree": _on_change,
    "subprocess.Popen": _on_popen,
    **dict.fromkeys(
        ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn"),
        _on_program,
    ),
}

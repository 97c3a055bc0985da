"""Where we may send: https to public addresses. Checked as written, and again as resolved, right before connecting."""

import ipaddress
import socket
from urllib.parse import urlsplit

from serving.errors import ServingError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_url(url: str, *, allow_loopback: bool = False) -> None:
    """Raises: ServingError unless the URL is https, without credentials, and not plainly a private address.

    `allow_loopback` also takes http and https to this machine: for tests and for processors on the same host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _refused() from None
    if not host or parts.username is not None or parts.password is not None or parts.fragment or port == 0:
        raise _refused()
    if not url.isascii() or any(character.isspace() or character == "\\" for character in url):
        raise _refused()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        is_local = host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
        if is_local and not (allow_loopback and host == "localhost"):
            raise _refused() from None
        is_loopback = host == "localhost"
    else:
        if not is_allowed(address, allow_loopback=allow_loopback):
            raise _refused()
        is_loopback = address.is_loopback
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_loopback and is_loopback):
        raise _refused()


def resolve(host: str, port: int, *, allow_loopback: bool = False) -> str:
    """The address to connect to. Raises: ServingError when any address of the name is one we do not send to; OSError."""
    found = {str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    if not found or not all(is_allowed(ipaddress.ip_address(each), allow_loopback=allow_loopback) for each in found):
        raise _refused()
    return min(found, key=lambda each: (":" in each, each))


def is_allowed(address: Address, *, allow_loopback: bool = False) -> bool:
    """Whether an address is of the public internet, whichever way it is written; or of this machine, where allowed."""
    inner = _inner(address)
    if inner is not None:
        return is_allowed(inner, allow_loopback=allow_loopback)
    if address.is_loopback:
        return allow_loopback
    return address.is_global and not address.is_multicast


def _inner(address: Address) -> Address | None:
    """The IPv4 address inside an IPv6 one, if it is such."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _refused() -> ServingError:
    return ServingError("url: expected https to a public address, without credentials, found another. Correct it.")

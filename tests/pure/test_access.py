from ipaddress import ip_network

import pytest

from orchestrator.domain.access import client_address, limit_key

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "found"),
    [
        pytest.param("1.2.3.4", ["9.9.9.9"], PROXIES, "1.2.3.4", id="a stranger is not believed"),
        pytest.param("10.0.0.1", ["9.9.9.9"], [], "10.0.0.1", id="nobody is trusted unless configured"),
        pytest.param("10.0.0.1", ["9.9.9.9"], PROXIES, "9.9.9.9", id="a proxy is believed"),
        pytest.param("10.0.0.1", ["6.6.6.6, 9.9.9.9, 10.0.0.2"], PROXIES, "9.9.9.9", id="through two proxies"),
        pytest.param("10.0.0.1", ["6.6.6.6", "9.9.9.9"], PROXIES, "9.9.9.9", id="several header lines"),
        pytest.param("10.0.0.1", ["nonsense"], PROXIES, "10.0.0.1", id="nonsense stops the walk"),
        pytest.param("10.0.0.1", ["9.9.9.9:1234"], PROXIES, "9.9.9.9", id="with a port"),
        pytest.param("fd00::1", ["[2001:db8::7]:443"], PROXIES, "2001:db8::7", id="ipv6 with a port"),
        pytest.param("::ffff:10.0.0.1", ["9.9.9.9"], PROXIES, "9.9.9.9", id="ipv4 in ipv6"),
        pytest.param("fe80::1%eth0", [], [], "fe80::1", id="with an interface"),
        pytest.param("10.0.0.1", ["10.0.0.9"], PROXIES, "10.0.0.9", id="only proxies: the furthest"),
        pytest.param("<local>", ["9.9.9.9"], PROXIES, None, id="no address at all"),
        pytest.param(None, [], [], None, id="a unix socket"),
    ],
)
def test_client_address(peer: str, forwarded: list[str], trusted: list, found: str | None) -> None:  # type: ignore[type-arg]
    assert client_address(peer, forwarded, trusted) == found


def test_an_ipv6_network_is_one_customer() -> None:
    assert limit_key("2001:db8::1") == limit_key("2001:db8::ffff:1")
    assert limit_key("2001:db8::1") != limit_key("2001:db8:0:1::1")
    assert limit_key("1.2.3.4") != limit_key("1.2.3.5")

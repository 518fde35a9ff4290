"""Whom the node trusts behind https://, and what to do about one that it does not."""

import ssl
from pathlib import Path

from node_agent.settings import BadSetting

_OTHER_NAME = {62, 64}
"""OpenSSL's numbers of a host name and of an address that the certificate does not name."""


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """The system's authorities, or this one alone. Raises BadSetting."""
    if ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except ssl.SSLError as error:
        raise BadSetting(f"NODE_CA_FILE: there is no certificate in PEM form in {ca_file}") from error
    except OSError as error:
        raise BadSetting(f"NODE_CA_FILE: {ca_file} cannot be read: {error.strerror}") from error


def why_unreachable(error: BaseException) -> str:
    """In words, with what to do where that is known."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return str(error) or type(error).__name__
    said = error.verify_message.rstrip(".")
    if error.verify_code in _OTHER_NAME:
        return f"its certificate is another host's: {said}; name it in ORCHESTRATOR_URL as its certificate does"
    return f"its certificate is not trusted: {said}; if your own authority signed it, name that by NODE_CA_FILE"

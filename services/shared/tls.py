"""Whether and whom a connection to MySQL trusts: `?ssl_ca=FILE` in a database's URL, and nothing less than that."""

import ssl

from sqlalchemy import URL

CA_FILE = "ssl_ca"
_WORDS = ("ssl", "tls")


def trust(url: URL) -> ssl.SSLContext | None:
    """TLS that takes only a server whose certificate one of the file's CAs signed, for the host that the URL names.

    Nothing where the URL asks for no TLS. Raises `ValueError` where it asks for what this cannot give, so that nobody
    takes a connection for encrypted, or for checked, which is not.
    """
    if others := sorted(name for name in url.query if name.lower().startswith(_WORDS) and name != CA_FILE):
        raise ValueError(f"of TLS it takes {CA_FILE}, a file of CA certificates, and not {', '.join(others)}")
    file = url.query.get(CA_FILE)
    if file is None:
        return None
    if not isinstance(file, str) or not file:
        raise ValueError(f"{CA_FILE} must name one file")
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:  # also an SSLError: there is nothing in it that could be trusted
        raise ValueError(f"{CA_FILE} must name a file of CA certificates, and {file} is none ({error})") from None


def without_trust(url: URL) -> URL:
    """The URL for a driver, which would understand something else by it."""
    return url.difference_update_query([CA_FILE])

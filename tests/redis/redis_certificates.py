"""Certificates for 127.0.0.1, of an authority that nobody else knows."""

import ssl
from dataclasses import dataclass

import trustme


@dataclass(frozen=True)
class Certificates:
    """Paths of what a server and its clients need.

    Attributes:
        ca: What clients trust.
        certificate: What the server shows.
        key: Its private key.
    """

    ca: str
    certificate: str
    key: str

    def server_context(self):
        """For a server of Python's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_certificates(directory, *names, not_after=None):
    """Make an authority and one certificate of it.

    Args:
        directory: Where the files go.
        names: For whom the certificate is; for 127.0.0.1 and localhost otherwise.
        not_after: When it expires, as a :class:`datetime.datetime`; long from now otherwise.
    """
    authority = trustme.CA()
    issued = authority.issue_cert(*(names or ("127.0.0.1", "localhost")), not_after=not_after)
    paths = Certificates(*(str(directory / name) for name in ("ca.pem", "server.pem", "server.key")))
    authority.cert_pem.write_to_path(paths.ca)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(paths.certificate, append=True)
    issued.private_key_pem.write_to_path(paths.key)
    return paths

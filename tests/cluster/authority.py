"""Certificate authorities of the tests: a cluster's, and those that come after it."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


class Pair(NamedTuple):
    """A certificate and its key, PEM."""

    certificate: str
    key: str

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Both as files, the certificate first: for a moment they are not of each other."""
        paths = directory / f"{name}.crt", directory / f"{name}.key"
        for path, content in zip(paths, self, strict=True):
            fresh = path.with_suffix(".new")
            fresh.write_text(content)
            fresh.replace(path)
        return paths


class Authority:
    """A CA of its own key, for which *by* vouches, or else itself. As clusters' CAs often are, it is without key
    identifiers."""

    def __init__(self, name: str = "kubernetes", by: Authority | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        made = (by or self)._builder(self._name, self._key, datetime.timedelta(0))
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = _pem(made.sign((by or self)._key, hashes.SHA256()))

    def issue(
        self, name: str, addresses: Sequence[str] = (), *, age: datetime.timedelta = datetime.timedelta(0)
    ) -> Pair:
        """A certificate of *name* for a day from *age* ago on: a server's where it has *addresses*, else a client's."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._builder(_named(name), key, age)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if addresses else ExtendedKeyUsageOID.CLIENT_AUTH
        made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses]
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name), *names]), critical=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(_pem(made.sign(self._key, hashes.SHA256())), private.decode())

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, age: datetime.timedelta
    ) -> x509.CertificateBuilder:
        began = datetime.datetime.now(datetime.UTC) - age - datetime.timedelta(minutes=5)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(began)
            .not_valid_after(began + DAY)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()

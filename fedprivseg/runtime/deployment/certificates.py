"""Who is who on the wire: one authority for a consortium, a certificate for its server and one for each hospital.

A hospital makes its key itself and sends a request; its name and its public key come back signed. The key (NIST P-384, the
curves that Flower takes) serves for two things: the client certificate with which the hospital reaches the TLS terminator, and
the SuperNode's signatures. The terminator lets a certificate speak for its own node only.
"""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_secret, write_text
from fedprivseg.crypto.identity import read_private

VALID_DAYS = 730
"""How long a certificate holds: a study of a year, and time to come to it."""

_EARLIER = timedelta(hours=1)
"""A hospital's clock may be behind."""


def create_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A new random P-384 key, written to `path` as PKCS8 PEM that only the owner can read.

    Raises:
        RequestError: the file exists, or cannot be written.
    """
    private = ec.generate_private_key(ec.SECP384R1())
    write_secret(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return private


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The P-384 key in the file `path`.

    Raises:
        RequestError: there is none that can be read.
    """
    private = read_private(path)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP384R1):
        raise RequestError(f"the file {path.name} holds no P-384 key; `fedprivseg deploy keygen` makes one")
    return private


def public_pem(public: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as Flower keeps it of a node."""
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def certified_key(certificate: Path) -> bytes:
    """The public key in a certificate, as Flower keeps it of a node."""
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    return public_pem(cast(ec.EllipticCurvePublicKey, public))


def create_authority(key: Path, certificate: Path, name: str) -> None:
    """Make the consortium's authority.

    Args:
        key: where its private key goes; it stays with the operator.
        certificate: where its certificate goes, which everybody has.
        name: what the consortium is called.
    """
    private = create_key(key)
    subject = _name(name)
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    signed = (
        _builder(subject, subject, private.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA384())
    )
    write_text(certificate, signed.public_bytes(Encoding.PEM).decode())


def issue_server(authority_key: Path, authority: Path, key: Path, certificate: Path, hosts: tuple[str, ...]) -> None:
    """Make the server's key and certificate.

    Args:
        authority_key: the authority's private key.
        authority: the authority's certificate.
        key: where the server's private key goes.
        certificate: where the server's certificate goes.
        hosts: the names and addresses under which it is reached.
    """
    public = create_key(key).public_key()
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    _issue(authority_key, authority, certificate, hosts[0], public, ExtendedKeyUsageOID.SERVER_AUTH, names)


def request(key: ec.EllipticCurvePrivateKey, site: str) -> bytes:
    """A hospital's certificate request (PEM): its name and its public key, signed with that key."""
    asked = x509.CertificateSigningRequestBuilder().subject_name(_name(site)).sign(key, hashes.SHA384())
    return asked.public_bytes(Encoding.PEM)


def read_request(path: Path) -> tuple[str, ec.EllipticCurvePublicKey]:
    """The site and the public key of the certificate request in the file `path`.

    Raises:
        RequestError: it is none, or not signed with its own key.
    """
    try:
        asked = x509.load_pem_x509_csr(path.read_bytes())
        public = asked.public_key()
        (site,) = asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if not isinstance(public, ec.EllipticCurvePublicKey) or not asked.is_signature_valid:
            raise InvalidSignature
    except OSError as fault:
        raise RequestError(f"{path} cannot be read ({fault.strerror}); give the request that a hospital sent") from None
    except (ValueError, InvalidSignature):
        raise RequestError(
            f"{path} is no certificate request that is signed with its own key; `fedprivseg deploy keygen` makes one"
        ) from None
    return str(site.value), public


def issue_site(
    authority_key: Path, authority: Path, certificate: Path, site: str, public: ec.EllipticCurvePublicKey
) -> None:
    """Sign that the hospital `site` has the key `public`.

    Args:
        authority_key: the authority's private key.
        authority: the authority's certificate.
        certificate: where the hospital's certificate goes.
        site: its name.
        public: its key.
    """
    _issue(authority_key, authority, certificate, site, public, ExtendedKeyUsageOID.CLIENT_AUTH, None)


def _issue(
    authority_key: Path,
    authority: Path,
    certificate: Path,
    name: str,
    public: ec.EllipticCurvePublicKey,
    use: x509.ObjectIdentifier,
    hosts: x509.SubjectAlternativeName | None,
) -> None:
    private = read_key(authority_key)
    issuer = x509.load_pem_x509_certificate(authority.read_bytes()).subject
    builder = (
        _builder(_name(name), issuer, public)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()), critical=False)
    )
    if hosts is not None:
        builder = builder.add_extension(hosts, critical=False)
    write_text(certificate, builder.sign(private, hashes.SHA384()).public_bytes(Encoding.PEM).decode())


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def fingerprint(public: ec.EllipticCurvePublicKey) -> str:
    """A key as two people compare it over the telephone: the first 16 bytes of its SHA-256, in fours."""
    text = hashlib.sha256(public_pem(public)).hexdigest()[:32]
    return " ".join(text[start : start + 4] for start in range(0, 32, 4))

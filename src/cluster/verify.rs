//! Whom this node lets in: a peer shows, in the TLS handshake, a certificate of the cluster's CA that is in its dates
//! and names this cluster. Whatever fails that is refused before one byte of the peer's is decoded as ours.
//!
//! Each refusal is one sentence with the way out: it travels in the close of the connection, so that both ends can say
//! it. TLS 1.3 only, AES-128-GCM on ring, no resumption: each link verifies afresh.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, RootCertStore,
    ServerConfig, SignatureScheme, version,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::identity::{Identity, Validity, bearer, date};

/// The protocol of a link, with its version: a node of another one is refused in the handshake.
const ALPN: &[u8] = b"aorta/1";

/// The configurations of both ends of a link.
pub(super) struct Tls {
    pub(super) client: ClientConfig,
    pub(super) server: ServerConfig,
}

/// Builds both configurations.
///
/// # Errors
/// What rustls says of the certificates: [`Identity::load`] has checked them, so that is a fault of this program.
pub(super) fn tls(identity: &Identity) -> Result<Tls, Error> {
    let provider = Arc::new(provider());
    let gate = Arc::new(Gate::new(identity, &provider)?);
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&gate) as Arc<dyn ServerCertVerifier>)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(gate)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;
    Ok(Tls { client, server })
}

fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider
}

/// Checks that a chain was signed by one of `roots`, at a time within its own dates: whether it has expired is another
/// question.
pub(super) fn check_signed(
    roots: &RootCertStore,
    chain: &[CertificateDer<'static>],
    validity: Validity,
) -> Result<(), String> {
    let (first, intermediates) = chain.split_first().ok_or("no certificate")?;
    let parsed = ParsedCertificate::try_from(first).map_err(|error| error.to_string())?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(validity.not_after_s).unwrap_or_default()));
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, at, algorithms)
        .map_err(|error| error.to_string())
}

/// The verifier of both ends.
#[derive(Debug)]
struct Gate {
    cluster: String,
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Gate {
    fn new(identity: &Identity, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let roots = Arc::new(identity.roots.clone());
        let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self {
            cluster: identity.bearer.cluster.clone(),
            roots: identity.roots.clone(),
            algorithms: provider.signature_verification_algorithms,
            clients,
        })
    }

    /// The name in a certificate whose signature and dates are good.
    fn check_name(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let bearer = bearer(certificate).map_err(|problem| {
            refusal(format!("its certificate does not name a node: {problem}; issue it with `aorta cert issue`"))
        })?;
        if bearer.cluster == self.cluster {
            return Ok(());
        }
        let (theirs, ours) = (&bearer.cluster, &self.cluster);
        Err(refusal(format!(
            "node '{}' belongs to cluster '{theirs}', this is cluster '{ours}'; correct its seeds, or issue it a certificate of the other cluster",
            bearer.node
        )))
    }
}

/// A refusal in our words. rustls sends a general alert for it; the words go into the close of the connection.
fn refusal(text: String) -> Error {
    Error::General(text)
}

/// Says in one sentence what webpki found, with the way out.
fn explained(error: Error, certificate: &CertificateDer<'_>) -> Error {
    let who = bearer(certificate).map_or_else(|_| "a peer".to_owned(), |b| format!("node '{}'", b.node));
    let Error::InvalidCertificate(problem) = &error else { return error };
    refusal(match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!(
                "the certificate of {who} is not signed by this cluster's CA; issue it with `aorta cert issue` and the key of cluster.ca"
            )
        }
        CertificateError::Expired => {
            format!("the certificate of {who} has expired; issue a new one with `aorta cert issue`")
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            let at = date(i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX));
            format!("the certificate of {who} expired on {at}; issue a new one with `aorta cert issue`")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!(
                "the certificate of {who} is not valid yet; set the clock of this machine or of the one that issued it"
            )
        }
        other => format!("the certificate of {who} is refused: {other}; issue it with `aorta cert issue`"),
    })
}

impl ServerCertVerifier for Gate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)
            .map_err(|error| explained(error, end_entity))?;
        self.check_name(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Gate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .clients
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(|error| explained(error, end_entity))?;
        self.check_name(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

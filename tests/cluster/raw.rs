//! A peer that speaks QUIC and TLS, and of the rest only what a test makes it say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{Ca, DEADLINE, now_s};

#[derive(Clone, Copy)]
pub(crate) enum Shows<'a> {
    Nothing,
    Node(&'a str),
}

#[derive(Debug)]
struct TrustsAll;

impl ServerCertVerifier for TrustsAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The raw peer, with a runtime of its own.
pub(crate) struct Raw {
    pub(crate) runtime: Runtime,
    endpoint: Endpoint,
}

/// A connection whose one stream is open.
pub(crate) struct Open {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

impl Raw {
    pub(crate) fn new(ca: &Ca, shows: Shows<'_>) -> Self {
        Self::with_alpn(ca, shows, b"aorta/1")
    }

    pub(crate) fn with_alpn(ca: &Ca, shows: Shows<'_>, alpn: &[u8]) -> Self {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustsAll));
        let mut tls = match shows {
            Shows::Nothing => builder.with_no_client_auth(),
            Shows::Node(name) => {
                let files = ca.files(name, now_s(), &ca.pem.certificate);
                let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap().map(Result::unwrap).collect();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap()).unwrap()
            }
        };
        tls.alpn_protocols = vec![alpn.to_vec()];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut endpoint = runtime.block_on(async { Endpoint::client("127.0.0.1:0".parse().unwrap()) }).unwrap();
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
        Self { runtime, endpoint }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// Dials and waits for the refusal; returns its words.
    pub(crate) fn dial_refused(&self, address: SocketAddr) -> String {
        self.runtime.block_on(async {
            let dialled = timeout(DEADLINE, self.endpoint.connect(address, "aorta").unwrap()).await.unwrap();
            match dialled {
                Ok(connection) => timeout(DEADLINE, connection.closed()).await.unwrap().to_string(),
                Err(error) => error.to_string(),
            }
        })
    }

    /// Dials and opens the stream.
    pub(crate) fn dial(&self, address: SocketAddr) -> Open {
        self.runtime.block_on(async {
            let connection =
                timeout(DEADLINE, self.endpoint.connect(address, "aorta").unwrap()).await.unwrap().unwrap();
            let (send, recv) = connection.open_bi().await.unwrap();
            Open { connection, send, recv }
        })
    }

    /// Dials as the process `boot`, greets for the live class and is let in. Node ids above the other's never decide, so
    /// the raw one must have one of those.
    pub(crate) fn link(&self, address: SocketAddr, boot: u64) -> Open {
        let mut open = self.dial(address);
        self.runtime.block_on(async {
            open.send.write_all(&greeting(1, boot, 0)).await.unwrap();
            let mut head = [0; 46];
            timeout(DEADLINE, open.recv.read_exact(&mut head)).await.unwrap().unwrap();
            let hello = u32::from_le_bytes(head[42..].try_into().unwrap()) as usize;
            let mut rest = vec![0; hello];
            open.recv.read_exact(&mut rest).await.unwrap();
            open.send.write_all(&[1, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
            let mut go = [0; 9];
            timeout(DEADLINE, open.recv.read_exact(&mut go)).await.unwrap().unwrap();
            assert_eq!(go[0], 2);
        });
        open
    }
}

impl Open {
    /// Waits until the other side closes; returns its words.
    pub(crate) fn closed(&self, raw: &Raw) -> String {
        raw.runtime.block_on(async { timeout(DEADLINE, self.connection.closed()).await.unwrap().to_string() })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            self.endpoint.close(0u32.into(), b"");
            let _ = timeout(Duration::from_millis(200), self.endpoint.wait_idle()).await;
        });
    }
}

/// A greeting without its Hello, whose length it gives as `hello`.
pub(crate) fn greeting(class: u8, boot: u64, hello: u32) -> Vec<u8> {
    let mut bytes = b"AORTA\x01".to_vec();
    bytes.extend_from_slice(&[class, 0]);
    bytes.extend_from_slice(&boot.to_le_bytes());
    bytes.extend_from_slice(&boot.to_le_bytes());
    bytes.extend_from_slice(&std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
    bytes.extend_from_slice(&9u16.to_le_bytes());
    bytes.extend_from_slice(&hello.to_le_bytes());
    bytes
}

//! Who a node is to its peers: a certificate of the cluster's CA whose URI SAN is `urn:aorta:<cluster>:<node>`.
//!
//! Loads and checks this node's own files, reads a peer's name out of its certificate, and says when a certificate is out
//! of its dates. It judges no peer (see `verify`) and issues nothing (see `certificate`).

use std::path::{Path, PathBuf};

use aorta_proto::NodeId;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The scheme and namespace of the names in certificates.
const URN: &str = "urn:aorta:";

/// Seconds before `not_after` from which [`Validity::ends_soon`] says so: 30 days, time enough for a person to act.
pub const ENDING_SOON_S: i64 = 30 * 86_400;

/// The name that a certificate gives its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The cluster it belongs to.
    pub cluster: String,
    /// The node's name in it.
    pub node: NodeId,
}

/// Where this node's certificate files are. All three are PEM.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// `cluster.ca`: the certificates of the cluster's CA, one or, while the CA is being changed, several.
    pub ca: PathBuf,
    /// `cluster.certificate`: this node's certificate, then intermediate ones if any.
    pub certificate: PathBuf,
    /// `cluster.key`: the certificate's private key.
    pub key: PathBuf,
}

/// Why this node's own certificate files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or holds no such PEM block.
    #[error(
        "{key} = \"{path}\": {problem}; `aorta cert init` makes a CA and `aorta cert issue` a certificate and its key"
    )]
    File {
        /// The configuration key that names the file.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The key is another certificate's.
    #[error(
        "cluster.key = \"{key}\" is not the key of cluster.certificate = \"{certificate}\"; give the pair that one `aorta cert issue` wrote"
    )]
    KeyMismatch {
        /// The key's file.
        key: String,
        /// The certificate's file.
        certificate: String,
    },
    /// The certificate gives another name than the configuration.
    #[error(
        "cluster.certificate = \"{path}\" is node '{certified}', but node_id = \"{node}\"; \
         correct node_id, or issue a certificate for it with `aorta cert issue {node}`"
    )]
    OtherName {
        /// The certificate's file.
        path: String,
        /// Whom it names.
        certified: NodeId,
        /// The node id in the configuration.
        node: NodeId,
    },
    /// The certificate was not signed by the CA beside it.
    #[error(
        "cluster.certificate = \"{certificate}\" is not signed by cluster.ca = \"{ca}\" ({problem}); issue it with that CA's key: `aorta cert issue`"
    )]
    ForeignCa {
        /// The certificate's file.
        certificate: String,
        /// The CA's file.
        ca: String,
        /// What the check said.
        problem: String,
    },
}

/// From when until when a certificate is good, in seconds of the wall clock since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before_s: i64,
    /// Last second.
    pub not_after_s: i64,
}

impl Validity {
    /// Why the certificate is not good at `wall_s`, with the way out; `None` while it is.
    #[must_use]
    pub fn problem(&self, wall_s: i64) -> Option<String> {
        if wall_s > self.not_after_s {
            let at = date(self.not_after_s);
            return Some(format!(
                "this node's certificate expired on {at}; issue a new one with `aorta cert issue` and restart"
            ));
        }
        (wall_s < self.not_before_s).then(|| {
            let (from, now) = (date(self.not_before_s), date(wall_s));
            format!("this node's certificate is valid only from {from}, and its clock says {now}; set the clock")
        })
    }

    /// Whether fewer than [`ENDING_SOON_S`] seconds are left at `wall_s`.
    #[must_use]
    pub fn ends_soon(&self, wall_s: i64) -> bool {
        self.not_after_s.saturating_sub(wall_s) < ENDING_SOON_S
    }
}

/// A second since 1970 as `YYYY-MM-DD HH:MM:SS UTC`.
pub(super) fn date(unix_s: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_s).map_or_else(
        |_| format!("second {unix_s} since 1970"),
        |at| {
            let (hour, minute, second) = at.to_hms();
            format!("{} {hour:02}:{minute:02}:{second:02} UTC", at.date())
        },
    )
}

/// This node's certificate, key and CA, read and checked against each other.
pub struct Identity {
    /// Whom the certificate names.
    pub bearer: Bearer,
    /// From when until when it is good.
    pub validity: Validity,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) roots: RootCertStore,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("bearer", &self.bearer)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the three files and checks that key, certificate, CA and node id belong together; without a `node` the
    /// certificate's name is the node's. Dates are not checked: a node with an expired certificate starts and says so
    /// where an operator looks.
    ///
    /// # Errors
    /// Names the configuration key, the file, what is wrong and the way out.
    pub fn load(files: &IdentityFiles, node: Option<&NodeId>) -> Result<Self, IdentityError> {
        let roots = roots(&files.ca)?;
        let chain = certificates("cluster.certificate", &files.certificate)?;
        let broken = |problem: String| fault("cluster.certificate", &files.certificate, problem);
        let first = chain.first().ok_or_else(|| broken("it holds no certificate".into()))?;
        let key = PrivateKeyDer::from_pem_slice(&bytes("cluster.key", &files.key)?)
            .map_err(|error| fault("cluster.key", &files.key, format!("no private key in PEM form ({error})")))?;
        let bearer = bearer(first).map_err(broken)?;
        let validity = validity(first).map_err(broken)?;
        if let Some(node) = node.filter(|node| **node != bearer.node) {
            let (path, certified, node) = (shown(&files.certificate), bearer.node.clone(), node.clone());
            return Err(IdentityError::OtherName { path, certified, node });
        }
        check_pair(files, &chain, &key)?;
        super::verify::check_signed(&roots, &chain, validity).map_err(|problem| IdentityError::ForeignCa {
            certificate: shown(&files.certificate),
            ca: shown(&files.ca),
            problem,
        })?;
        Ok(Self { bearer, validity, chain, key, roots })
    }
}

fn check_pair(
    files: &IdentityFiles,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), IdentityError> {
    let provider: CryptoProvider = rustls::crypto::ring::default_provider();
    let signer = provider
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|error| fault("cluster.key", &files.key, error.to_string()))?;
    CertifiedKey::new(chain.to_vec(), signer)
        .keys_match()
        .map_err(|_| IdentityError::KeyMismatch { key: shown(&files.key), certificate: shown(&files.certificate) })
}

fn roots(path: &Path) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("cluster.ca", path)? {
        roots.add(certificate).map_err(|error| fault("cluster.ca", path, error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(key, path)?).collect();
    let found = found.map_err(|error| fault(key, path, format!("not PEM ({error})")))?;
    if found.is_empty() { Err(fault(key, path, "it holds no certificate in PEM form".into())) } else { Ok(found) }
}

fn bytes(key: &'static str, path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|error| fault(key, path, format!("cannot be read ({error})")))
}

fn fault(key: &'static str, path: &Path, problem: String) -> IdentityError {
    IdentityError::File { key, path: shown(path), problem }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Whether a text may be a cluster id: as a node id, so that the name in the certificate splits in one way only.
#[must_use]
pub fn is_cluster_id(text: &str) -> bool {
    NodeId::new(text).is_ok()
}

/// The name that goes into a node's certificate.
#[must_use]
pub(super) fn urn(cluster: &str, node: &NodeId) -> String {
    format!("{URN}{cluster}:{node}")
}

/// The name that goes into the CA's certificate, so that `aorta cert issue` knows the cluster.
#[must_use]
pub(super) fn authority_urn(cluster: &str) -> String {
    format!("{URN}{cluster}")
}

/// Whom a certificate names.
///
/// # Errors
/// When it is no certificate, or has not exactly one `urn:aorta:<cluster>:<node>` among its names.
pub fn bearer(certificate: &[u8]) -> Result<Bearer, String> {
    let names = names(certificate)?;
    let [name] = &names[..] else {
        return Err(format!("it has {} names of the form {URN}<cluster>:<node>, not one", names.len()));
    };
    let (cluster, node) = name.split_once(':').ok_or_else(|| format!("{URN}{name} names a cluster but no node"))?;
    if !is_cluster_id(cluster) {
        return Err(format!("{URN}{name} holds no good cluster id"));
    }
    let node = NodeId::new(node).map_err(|error| error.to_string())?;
    Ok(Bearer { cluster: cluster.to_owned(), node })
}

/// The cluster that a CA's certificate was made for.
///
/// # Errors
/// When it is no certificate, or was not made by `aorta cert init`.
pub(super) fn authority(certificate: &[u8]) -> Result<String, String> {
    match &names(certificate)?[..] {
        [cluster] if is_cluster_id(cluster) => Ok(cluster.clone()),
        _ => Err(format!("it has no name of the form {URN}<cluster>")),
    }
}

/// What follows `urn:aorta:` in each such name of a certificate.
fn names(certificate: &[u8]) -> Result<Vec<String>, String> {
    let parsed = parse(certificate)?;
    let extension = parsed.subject_alternative_name().map_err(|error| format!("its names cannot be read ({error})"))?;
    let general = extension.map(|e| &e.value.general_names[..]).unwrap_or_default();
    Ok(general
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(URN).map(str::to_owned),
            _ => None,
        })
        .collect())
}

/// The dates of a certificate.
///
/// # Errors
/// When it is no certificate.
pub fn validity(certificate: &[u8]) -> Result<Validity, String> {
    let parsed = parse(certificate)?;
    let dates = parsed.validity();
    Ok(Validity { not_before_s: dates.not_before.timestamp(), not_after_s: dates.not_after.timestamp() })
}

fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, String> {
    X509Certificate::from_der(certificate)
        .map(|(_, parsed)| parsed)
        .map_err(|error| format!("no certificate ({error})"))
}

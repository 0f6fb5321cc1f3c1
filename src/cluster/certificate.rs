//! Issues the cluster's certificates: the CA (`aorta cert init`) and one certificate a node (`aorta cert issue`).
//!
//! Works on PEM texts and the time it is given; reads and writes no file, and keeps no list of what it issued.

use aorta_proto::NodeId;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use super::identity::{authority, authority_urn, is_cluster_id, urn, validity};

/// How long a CA is good, days: ten years, for changing it touches every node.
pub const AUTHORITY_DAYS: u32 = 3650;

/// How long a node's certificate is good, days: one year; `aorta cert issue` makes the next one, and a restart takes it.
pub const NODE_DAYS: u32 = 365;

/// A certificate is good from this many seconds before it was issued, for clocks may be wrong: 48 h.
pub const BACKDATED_S: i64 = 48 * 3600;

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The cluster id cannot stand in a certificate.
    #[error("'{0}' is no cluster id: 1 to 64 bytes of a-z, 0-9, '.', '_' and '-'")]
    ClusterId(String),
    /// The CA's certificate cannot be used.
    #[error("the CA's certificate cannot be used: {0}; `aorta cert init` makes one")]
    Authority(String),
    /// The CA's key cannot be used, or is another certificate's.
    #[error("the CA's key cannot be used: {0}; give the pair that `aorta cert init` wrote")]
    AuthorityKey(String),
    /// A date beyond what a certificate can say.
    #[error("no certificate can be valid for {0} days from now")]
    Dates(u32),
    /// The certificate could not be made or signed.
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// A new certificate and its private key, PEM texts. The key must be readable by its node alone.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A cluster's CA: what can issue certificates for its nodes.
pub struct Authority {
    cluster: String,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new CA for `cluster`, good for `days` days from `now_s` (wall clock, seconds since 1970).
    ///
    /// # Errors
    /// When the cluster id is none, or the dates are out of range.
    pub fn create(cluster: &str, now_s: i64, days: u32) -> Result<Issued, IssueError> {
        if !is_cluster_id(cluster) {
            return Err(IssueError::ClusterId(cluster.to_owned()));
        }
        let mut params = params(&format!("Aorta cluster {cluster}"), &authority_urn(cluster), now_s, days)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Takes a CA from the PEM texts of its certificate and key.
    ///
    /// # Errors
    /// When either is not what it should be or they do not belong together.
    pub fn load(certificate: &str, key: &str) -> Result<Self, IssueError> {
        let refuse = |problem: String| IssueError::Authority(problem);
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| refuse(e.to_string()))?;
        let cluster = authority(&der).map_err(refuse)?;
        let not_after = validity(&der).map_err(refuse)?.not_after_s;
        let not_after = OffsetDateTime::from_unix_timestamp(not_after).map_err(|e| refuse(e.to_string()))?;
        let key = KeyPair::from_pem(key).map_err(|error| IssueError::AuthorityKey(error.to_string()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| refuse(e.to_string()))?;
        if parsed.public_key().subject_public_key.data != key.der_bytes() {
            return Err(IssueError::AuthorityKey("it is not the key of this certificate".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| refuse(error.to_string()))?;
        Ok(Self { cluster, not_after, issuer })
    }

    /// The cluster whose CA this is.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Issues a certificate for `node`, good for `days` days from `now_s` (wall clock, seconds since 1970), but not
    /// longer than the CA.
    ///
    /// # Errors
    /// When the dates are out of range.
    pub fn issue(&self, node: &NodeId, now_s: i64, days: u32) -> Result<Issued, IssueError> {
        let mut params = params(node.as_str(), &urn(&self.cluster, node), now_s, days)?;
        params.not_after = params.not_after.min(self.not_after);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params(common_name: &str, name: &str, now_s: i64, days: u32) -> Result<CertificateParams, IssueError> {
    let now = OffsetDateTime::from_unix_timestamp(now_s).map_err(|_| IssueError::Dates(days))?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(name)?)];
    params.not_before = now.checked_sub(Duration::seconds(BACKDATED_S)).ok_or(IssueError::Dates(days))?;
    params.not_after = now.checked_add(Duration::days(i64::from(days))).ok_or(IssueError::Dates(days))?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::super::identity::bearer;
    use super::*;

    const NOW_S: i64 = 1_800_000_000;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_node_certificate_names_cluster_and_node_and_is_backdated() {
        let ca = Authority::create("blue", NOW_S, AUTHORITY_DAYS).unwrap();
        let authority = Authority::load(&ca.certificate, &ca.key).unwrap();
        assert_eq!(authority.cluster(), "blue");
        let node = NodeId::new("node-1").unwrap();
        let issued = authority.issue(&node, NOW_S, NODE_DAYS).unwrap();
        let named = bearer(&der(&issued.certificate)).unwrap();
        assert_eq!((named.cluster.as_str(), named.node), ("blue", node));
        let dates = validity(&der(&issued.certificate)).unwrap();
        assert_eq!(dates.not_before_s, NOW_S - BACKDATED_S);
        assert_eq!(dates.not_after_s, NOW_S + i64::from(NODE_DAYS) * 86_400);
        assert_eq!(dates.problem(NOW_S), None);
        assert!(dates.problem(dates.not_after_s + 1).unwrap().contains("expired"));
        assert!(dates.problem(dates.not_before_s - 1).unwrap().contains("valid only from"));
    }

    #[test]
    fn no_node_outlives_its_ca() {
        let ca = Authority::create("blue", NOW_S, 10).unwrap();
        let authority = Authority::load(&ca.certificate, &ca.key).unwrap();
        let issued = authority.issue(&NodeId::new("n").unwrap(), NOW_S, NODE_DAYS).unwrap();
        assert_eq!(validity(&der(&issued.certificate)).unwrap().not_after_s, NOW_S + 10 * 86_400);
    }

    #[test]
    fn refuses_what_is_no_ca() {
        assert!(matches!(Authority::create("Blue:1", NOW_S, 1), Err(IssueError::ClusterId(_))));
        let one = Authority::create("blue", NOW_S, 1).unwrap();
        let two = Authority::create("blue", NOW_S, 1).unwrap();
        assert!(matches!(Authority::load(&one.certificate, &two.key), Err(IssueError::AuthorityKey(_))));
        assert!(matches!(Authority::load("nothing", &one.key), Err(IssueError::Authority(_))));
        let authority = Authority::load(&one.certificate, &one.key).unwrap();
        let node = authority.issue(&NodeId::new("n").unwrap(), NOW_S, 1).unwrap();
        assert!(matches!(Authority::load(&node.certificate, &node.key), Err(IssueError::Authority(_))));
    }
}

//! The cluster's own certificate authority: it makes nodes members, and lets clients know them.
//!
//! Two kinds of certificates, never the same: a *node*'s, for links between nodes, whose URI says
//! which node of which cluster it is; and a *listener*'s, which names hosts and proves to a
//! client that it talks to this cluster. The second opens no door between nodes.
//!
//! Whoever has the authority's key can make nodes. It belongs on no node: `init` uses it once.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::identity::{ClusterId, NodeIdentity};
use crate::pem::{self, PemError};
use crate::tls::Trust;

/// How long a certificate is valid, in days. Ten years: a cluster must not die of a date that
/// nobody watched; what a lost key can do is ended by a new authority, not by waiting.
pub const CERTIFICATE_DAYS: u32 = 3_650;

/// How far the clocks of two nodes may differ when a certificate is new.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(24 * 3600);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the authority's common name begins with; the cluster id follows.
const COMMON_NAME_PREFIX: &str = "Highwater cluster ";

/// A certificate cannot be made, or an authority not be read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its files cannot be used.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The certificate is not that of an authority made here.
    #[error("{}: not the certificate of a Highwater authority", .0.display())]
    NotAnAuthority(PathBuf),
    /// Certificate and key do not belong together.
    #[error("{certificate} and {key} do not belong together", certificate = certificate.display(), key = key.display())]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The identity is of another cluster than this authority's.
    #[error("this authority is of cluster {own}, the node of cluster {asked}")]
    OtherCluster {
        /// The authority's cluster.
        own: ClusterId,
        /// The cluster in the identity.
        asked: ClusterId,
    },
    /// A name that no certificate can carry.
    #[error("{0:?} is neither a host name nor an address that a certificate can carry")]
    Name(String),
    /// Making the key or the certificate failed.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A cluster's certificate authority, with its key.
pub struct ClusterCa {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl ClusterCa {
    /// A new authority for a new cluster.
    ///
    /// # Errors
    ///
    /// [`CaError::Generate`] if the key cannot be made.
    pub fn generate(cluster: ClusterId) -> Result<ClusterCa, CaError> {
        let key = KeyPair::generate()?;
        let mut params = params(format!("{COMMON_NAME_PREFIX}{cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(ClusterCa {
            cluster,
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority that [`write`](ClusterCa::write) has put into these files.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, the key may be read by others, or they are not what they should
    /// be.
    pub fn read(certificate: &Path, key: &Path) -> Result<ClusterCa, CaError> {
        let not_an_authority = || CaError::NotAnAuthority(certificate.to_owned());
        let file = pem::read_certificates(certificate)?;
        let der = file.certificates[0].clone();
        let (cluster, public_key) = inspect(&der).ok_or_else(not_an_authority)?;
        let pair = KeyPair::try_from(&pem::read_key(key)?.key)?;
        if pair.public_key_raw() != public_key {
            return Err(CaError::KeyMismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            });
        }
        Ok(ClusterCa {
            cluster,
            pem: file.text,
            issuer: Issuer::from_ca_cert_der(&der, pair)?,
            certificate: der,
        })
    }

    /// Writes certificate and key into new files, the key's with mode 0600. Syncs both, not their
    /// directory.
    ///
    /// # Errors
    ///
    /// If a file is there already or cannot be written.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<(), PemError> {
        pem::write_key(key, &self.issuer.key().serialize_pem())?;
        pem::write_certificates(certificate, &self.pem)
    }

    /// The cluster whose nodes it makes.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its certificate in PEM: what nodes and clients are given.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// What trusts this authority and nobody else.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::of(vec![self.certificate.clone()])
    }

    /// A certificate that makes its holder `identity` among the nodes.
    ///
    /// # Errors
    ///
    /// [`CaError::OtherCluster`] if the identity is not of this cluster.
    pub fn issue_node(&self, identity: &NodeIdentity) -> Result<Credentials, CaError> {
        if identity.cluster != self.cluster {
            return Err(CaError::OtherCluster {
                own: self.cluster,
                asked: identity.cluster,
            });
        }
        let mut params = params(format!("node {}", identity.node));
        params.subject_alt_names = vec![
            SanType::URI(ia5(identity.to_string())?),
            SanType::DnsName(ia5(identity.peer_name())?),
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue(params)
    }

    /// A certificate for a listener that clients reach under `names`: host names or addresses.
    ///
    /// # Errors
    ///
    /// [`CaError::Name`] if a name can be no host's.
    pub fn issue_listener(&self, names: &[&str]) -> Result<Credentials, CaError> {
        let mut params = params("client listener".to_owned());
        params.subject_alt_names = names
            .iter()
            .map(|name| listener_name(name))
            .collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// Signs a leaf with a key of its own.
    pub(crate) fn issue(&self, mut params: CertificateParams) -> Result<Credentials, CaError> {
        let key = KeyPair::generate()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Credentials {
            chain: vec![certificate.der().clone()],
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }
}

impl std::fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterCa({})", self.cluster)
    }
}

/// A certificate and its private key.
pub struct Credentials {
    /// The holder's certificate first, then what leads to the authority.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    chain_pem: String,
    key_pem: String,
}

impl Credentials {
    /// Reads what [`write`](Credentials::write) has written, or anybody's PEM files.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, holds something else, or others may read the key.
    pub fn read(certificate: &Path, key: &Path) -> Result<Credentials, PemError> {
        let chain = pem::read_certificates(certificate)?;
        let key = pem::read_key(key)?;
        Ok(Credentials {
            chain: chain.certificates,
            chain_pem: chain.text,
            key: key.key,
            key_pem: key.text,
        })
    }

    /// When the holder's certificate ends to be valid, so that somebody can be warned before;
    /// nothing if it is no X.509 or older than the Unix epoch.
    #[must_use]
    pub fn valid_until(&self) -> Option<SystemTime> {
        let (_, certificate) = x509_parser::parse_x509_certificate(self.chain.first()?).ok()?;
        let seconds = certificate.validity().not_after.timestamp();
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
    }

    /// Writes both into new files, the key's with mode 0600. Syncs both, not their directory.
    ///
    /// # Errors
    ///
    /// If a file is there already or cannot be written.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<(), PemError> {
        pem::write_key(key, &self.key_pem)?;
        pem::write_certificates(certificate, &self.chain_pem)
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Credentials {
        Credentials {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            chain_pem: self.chain_pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

/// Says nothing of the key.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({} certificates)", self.chain.len())
    }
}

/// What all our certificates have in common.
pub(crate) fn params(common_name: String) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - CLOCK_SKEW_MAX).into();
    params.not_after = (now + DAY * CERTIFICATE_DAYS).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn ia5(text: String) -> Result<rcgen::string::Ia5String, CaError> {
    text.as_str().try_into().map_err(|_| CaError::Name(text))
}

fn listener_name(name: &str) -> Result<SanType, CaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    // What rustls takes for a host name, clients can ask for.
    rustls_pki_types::DnsName::try_from(name).map_err(|_| CaError::Name(name.to_owned()))?;
    Ok(SanType::DnsName(ia5(name.to_owned())?))
}

/// The cluster that an authority's certificate names, and its public key; nothing if it is none.
fn inspect(certificate: &CertificateDer<'_>) -> Option<(ClusterId, Vec<u8>)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    if !certificate.is_ca() {
        return None;
    }
    let name = certificate.subject().iter_common_name().next()?;
    let cluster = name.as_str().ok()?.strip_prefix(COMMON_NAME_PREFIX)?;
    let public_key = certificate.public_key().subject_public_key.data.to_vec();
    Some((cluster.parse().ok()?, public_key))
}

/// A node's certificate without an authority, for tests of what is refused.
#[cfg(test)]
pub(crate) fn self_signed(identity: &NodeIdentity) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let mut params = params(format!("node {}", identity.node));
    params.subject_alt_names = vec![SanType::URI(ia5(identity.to_string()).unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key).unwrap();
    Credentials {
        chain: vec![certificate.der().clone()],
        chain_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::identity::{Incarnation, NodeId};
    use crate::tls::identity_of;

    fn identity(cluster: ClusterId) -> NodeIdentity {
        NodeIdentity {
            cluster,
            node: NodeId::new(3).unwrap(),
            incarnation: Incarnation::from_bytes([9; 16]),
        }
    }

    #[test]
    fn an_authority_survives_its_files_and_signs_on() {
        let dir = tempfile::tempdir().unwrap();
        let [certificate, key] = ["ca.pem", "ca.key"].map(|name| dir.path().join(name));
        let cluster = ClusterId::random().unwrap();
        let made = ClusterCa::generate(cluster).unwrap();
        made.write(&certificate, &key).unwrap();
        let read = ClusterCa::read(&certificate, &key).unwrap();
        assert_eq!(read.cluster(), cluster);
        assert_eq!(read.certificate_pem(), made.certificate_pem());
        let node = read.issue_node(&identity(cluster)).unwrap();
        assert_eq!(identity_of(&node.chain[0]), Ok(identity(cluster)));
    }

    #[test]
    fn credentials_survive_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let [certificate, key] = ["node.pem", "node.key"].map(|name| dir.path().join(name));
        let cluster = ClusterId::random().unwrap();
        let ca = ClusterCa::generate(cluster).unwrap();
        let made = ca.issue_node(&identity(cluster)).unwrap();
        made.write(&certificate, &key).unwrap();
        let read = Credentials::read(&certificate, &key).unwrap();
        assert_eq!(read.chain, made.chain);
        assert_eq!(read.key, made.key);
        let days = (read.valid_until().unwrap() - DAY).duration_since(SystemTime::now());
        assert_eq!(days.unwrap().as_secs() / DAY.as_secs(), 3_648);
        assert!(matches!(
            made.write(&certificate, &key),
            Err(PemError::Io { .. })
        ));
        assert!(matches!(
            Credentials::read(&key, &certificate),
            Err(PemError::NoCertificate { .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let [certificate, key] = ["a.pem", "a.key"].map(|name| dir.path().join(name));
        let ca = ClusterCa::generate(ClusterId::random().unwrap()).unwrap();
        ca.write(&certificate, &key).unwrap();
        let mode = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            let refusal = ClusterCa::read(&certificate, &key).unwrap_err();
            assert!(
                matches!(refusal, CaError::Pem(PemError::KeyReadableByOthers { mode: m, .. }) if m == mode)
            );
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let ca = ClusterCa::generate(ClusterId::random().unwrap()).unwrap();
        let other = ClusterCa::generate(ClusterId::random().unwrap()).unwrap();
        ca.write(&path("a.pem"), &path("a.key")).unwrap();
        other.write(&path("b.pem"), &path("b.key")).unwrap();
        assert!(matches!(
            ClusterCa::read(&path("a.pem"), &path("b.key")),
            Err(CaError::KeyMismatch { .. })
        ));
        assert!(matches!(
            ca.issue_node(&identity(other.cluster())),
            Err(CaError::OtherCluster { .. })
        ));
        let listener = ca.issue_listener(&["localhost"]).unwrap();
        listener.write(&path("l.pem"), &path("l.key")).unwrap();
        assert!(matches!(
            ClusterCa::read(&path("l.pem"), &path("l.key")),
            Err(CaError::NotAnAuthority(_))
        ));
        assert!(identity_of(&listener.chain[0]).is_err());
    }

    #[test]
    fn listeners_are_named_by_hosts_and_addresses() {
        let ca = ClusterCa::generate(ClusterId::random().unwrap()).unwrap();
        assert!(
            ca.issue_listener(&["localhost", "::1", "10.0.0.1", "a.example"])
                .is_ok()
        );
        for name in ["", "a b", "é.example", "-", "a..b"] {
            assert!(
                matches!(ca.issue_listener(&[name]), Err(CaError::Name(_))),
                "{name:?}"
            );
        }
    }
}

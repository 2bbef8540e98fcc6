//! TLS 1.3 with one fixed shape: AWS-LC, TLS_AES_128_GCM first, no resumption, no early data.
//!
//! Between nodes both sides show a certificate of the cluster's authority, and what the verified
//! certificate says about its holder is compared with who was expected. Towards clients only the
//! listener shows one. Resumed handshakes would skip the look at the certificate's dates, and
//! early data can be replayed: neither is offered or accepted.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::crypto::HmacKey;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use crate::ca::Credentials;
use crate::identity::NodeIdentity;
use crate::pem::{self, PemError};

/// The application protocol between nodes over QUIC.
pub const ALPN_PEER: &[u8] = b"highwater-peer/1";

/// The application protocol between nodes over TCP.
pub const ALPN_PEER_TCP: &[u8] = b"highwater-peer-tcp/1";

/// The application protocol of clients: Kafka's requests on QUIC streams.
pub const ALPN_KAFKA: &[u8] = b"highwater-kafka/1";

/// Certificates and keys do not make a usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refuses them: key and certificate do not match, or are of no known kind.
    #[error("the certificate or its key cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    /// The authority's certificate cannot be used as one.
    #[error("the authority's certificate cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The node's own certificate is not a node's.
    #[error("this node's certificate: {0}")]
    Identity(#[from] CertificateError),
}

/// A certificate that does not say which node holds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is not X.509.
    #[error("is not X.509")]
    Malformed,
    /// It carries no node's identity, or several: a client's or a listener's.
    #[error("carries {found} node identities in place of one")]
    NotANode {
        /// How many it carries.
        found: usize,
    },
}

/// Whose certificates are believed.
#[derive(Debug, Clone)]
pub struct Trust(Vec<CertificateDer<'static>>);

impl Trust {
    /// Of the authorities whose certificates lie in a PEM file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or holds none.
    pub fn read(path: &Path) -> Result<Trust, PemError> {
        pem::read_certificates(path).map(|file| Trust(file.certificates))
    }

    /// Of the authorities in a PEM text; nothing if it holds none or a broken one.
    #[must_use]
    pub fn from_pem(text: &str) -> Option<Trust> {
        pem::certificates(text.as_bytes()).map(Trust)
    }

    pub(crate) fn of(authorities: Vec<CertificateDer<'static>>) -> Trust {
        Trust(authorities)
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for authority in &self.0 {
            roots.add(authority.clone())?;
        }
        Ok(Arc::new(roots))
    }
}

/// What a node needs to talk to its peers.
#[derive(Clone)]
pub struct PeerTls {
    identity: NodeIdentity,
    pub(crate) server: PeerServerTls,
    pub(crate) client: PeerDialTls,
    pub(crate) secret: EndpointSecret,
}

/// What a node needs for those who dial it, by transport.
#[derive(Clone)]
pub(crate) struct PeerServerTls {
    pub(crate) quic: Arc<QuicServerConfig>,
    pub(crate) tcp: Arc<ServerConfig>,
}

/// What a node needs to dial others, by transport.
#[derive(Clone)]
pub(crate) struct PeerDialTls {
    pub(crate) quic: Arc<QuicClientConfig>,
    pub(crate) tcp: Arc<ClientConfig>,
}

impl PeerTls {
    /// Of a node's credentials and the authority of its cluster.
    ///
    /// # Errors
    ///
    /// If the certificate is not a node's, its key is another's, or the authority is unusable.
    pub fn new(trust: &Trust, credentials: &Credentials) -> Result<PeerTls, TlsError> {
        let identity = match credentials.chain.first() {
            Some(certificate) => identity_of(certificate)?,
            None => return Err(CertificateError::NotANode { found: 0 }.into()),
        };
        let provider = crypto_provider();
        let roots = trust.roots()?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let server = server_builder(&provider)?.with_client_cert_verifier(verifier);
        let server = finish_server(server, credentials)?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
        let client = client_builder(&provider)?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())?;
        Ok(PeerTls {
            identity,
            server: PeerServerTls {
                quic: quic_server(server.clone(), ALPN_PEER),
                tcp: tcp_server(server, ALPN_PEER_TCP),
            },
            client: PeerDialTls {
                quic: quic_client(client.clone(), ALPN_PEER),
                tcp: tcp_client(client, ALPN_PEER_TCP),
            },
            secret: EndpointSecret::of(credentials),
        })
    }

    /// Who this node is, by its own certificate.
    #[must_use]
    pub fn identity(&self) -> NodeIdentity {
        self.identity
    }
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerTls({})", self.identity)
    }
}

/// What a listener needs that clients reach by QUIC.
#[derive(Clone)]
pub struct ListenerTls {
    pub(crate) server: Arc<QuicServerConfig>,
    pub(crate) secret: EndpointSecret,
}

impl ListenerTls {
    /// Of a listener's credentials.
    ///
    /// # Errors
    ///
    /// If certificate and key cannot be used.
    pub fn new(credentials: &Credentials) -> Result<ListenerTls, TlsError> {
        let server = server_builder(&crypto_provider())?.with_no_client_auth();
        Ok(ListenerTls {
            server: quic_server(finish_server(server, credentials)?, ALPN_KAFKA),
            secret: EndpointSecret::of(credentials),
        })
    }
}

impl std::fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ListenerTls")
    }
}

/// What a client needs that reaches listeners by QUIC.
#[derive(Clone)]
pub struct ClientTls {
    pub(crate) client: Arc<QuicClientConfig>,
}

impl ClientTls {
    /// That believes listeners certified by `trust`, and nobody else.
    ///
    /// # Errors
    ///
    /// If an authority's certificate cannot be used.
    pub fn new(trust: &Trust) -> Result<ClientTls, TlsError> {
        let provider = crypto_provider();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(trust.roots()?, provider.clone())
                .build()?;
        let client = client_builder(&provider)?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        Ok(ClientTls {
            client: quic_client(client, ALPN_KAFKA),
        })
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTls")
    }
}

/// AWS-LC with the suites of TLS 1.3, AES-128 first: on machines with AES instructions it is the
/// quickest by a tenth, ChaCha20 takes two and a half times its CPU. It has code for the vector units
/// of newer machines that *ring* lacks (docs/performance.md).
pub(crate) fn crypto_provider() -> Arc<CryptoProvider> {
    use provider::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..provider::default_provider()
    })
}

type ServerBuilder = rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>;
type ClientBuilder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn server_builder(provider: &Arc<CryptoProvider>) -> Result<ServerBuilder, rustls::Error> {
    ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
}

fn client_builder(provider: &Arc<CryptoProvider>) -> Result<ClientBuilder, rustls::Error> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
}

fn finish_server(
    builder: rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
    credentials: &Credentials,
) -> Result<ServerConfig, TlsError> {
    let mut config =
        builder.with_single_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

fn tcp_server(mut config: ServerConfig, alpn: &[u8]) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

fn quic_server(mut config: ServerConfig, alpn: &[u8]) -> Arc<QuicServerConfig> {
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(
        QuicServerConfig::try_from(config)
            .expect("the provider has TLS_AES_128_GCM_SHA256, which QUIC's first packets need"),
    )
}

fn tcp_client(mut config: ClientConfig, alpn: &[u8]) -> Arc<ClientConfig> {
    finish_client(&mut config, alpn);
    Arc::new(config)
}

fn quic_client(mut config: ClientConfig, alpn: &[u8]) -> Arc<QuicClientConfig> {
    finish_client(&mut config, alpn);
    Arc::new(
        QuicClientConfig::try_from(config)
            .expect("the provider has TLS_AES_128_GCM_SHA256, which QUIC's first packets need"),
    )
}

fn finish_client(config: &mut ClientConfig, alpn: &[u8]) {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
}

/// What QUIC endpoints sign stateless resets with, derived from the private key so that it
/// outlives the process: a restarted node can tell its peers at once that their connections are
/// gone, where a fresh secret would leave them to the idle timeout.
#[derive(Clone)]
pub(crate) struct EndpointSecret {
    pub(crate) reset_key: Arc<dyn HmacKey>,
    /// Makes connection ids recognisable across lives.
    pub(crate) connection_id_key: u64,
}

impl EndpointSecret {
    fn of(credentials: &Credentials) -> EndpointSecret {
        let key = hmac::Key::new(hmac::HMAC_SHA256, credentials.key.secret_der());
        let reset = hmac::sign(&key, b"highwater quic stateless reset");
        let connection_id = hmac::sign(&key, b"highwater quic connection id");
        let (head, _) = connection_id
            .as_ref()
            .split_first_chunk()
            .expect("a SHA-256 tag has 32 bytes");
        EndpointSecret {
            reset_key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref())),
            connection_id_key: u64::from_le_bytes(*head),
        }
    }
}

/// The node that a certificate makes its holder. Whether it may be believed is another question,
/// which the handshake has answered.
///
/// # Errors
///
/// If it is not X.509, or not a node's.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<NodeIdentity, CertificateError> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateError::Malformed);
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::Malformed)?
        .map_or(&[][..], |names| &names.value.general_names);
    let mut identities = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.parse().ok(),
        _ => None,
    });
    match (identities.next(), identities.count()) {
        (Some(identity), 0) => Ok(identity),
        (Some(_), more) => Err(CertificateError::NotANode { found: more + 1 }),
        (None, _) => Err(CertificateError::NotANode { found: 0 }),
    }
}

/// Who is at the other end of a connection between nodes, by its verified certificate.
pub(crate) fn quic_peer_identity(
    connection: &quinn::Connection,
) -> Result<NodeIdentity, CertificateError> {
    let chain = connection
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    match chain.as_deref().map(Vec::as_slice) {
        Some([certificate, ..]) => identity_of(certificate),
        _ => Err(CertificateError::NotANode { found: 0 }),
    }
}

/// A client of any shape, for tests of what is refused: one protocol for each transport.
#[cfg(test)]
pub(crate) fn raw_client(
    trust: &Trust,
    credentials: Option<&Credentials>,
    [quic, tcp]: [&[u8]; 2],
) -> PeerDialTls {
    let builder = client_builder(&crypto_provider()).unwrap();
    let client = raw_config(builder, trust, credentials);
    PeerDialTls {
        quic: quic_client(client.clone(), quic),
        tcp: tcp_client(client, tcp),
    }
}

/// A client of an older TLS, for TCP alone: QUIC knows none.
#[cfg(test)]
pub(crate) fn old_client(trust: &Trust, credentials: &Credentials) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap();
    let client = raw_config(builder, trust, Some(credentials));
    tcp_client(client, ALPN_PEER_TCP)
}

#[cfg(test)]
fn raw_config(
    builder: ClientBuilder,
    trust: &Trust,
    credentials: Option<&Credentials>,
) -> ClientConfig {
    let roots = trust.roots().unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, crypto_provider());
    let builder = builder.with_webpki_verifier(verifier.build().unwrap());
    match credentials {
        None => builder.with_no_client_auth(),
        Some(credentials) => builder
            .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
            .unwrap(),
    }
}

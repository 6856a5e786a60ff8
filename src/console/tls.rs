//! HTTPS, where the configuration names a certificate.

use std::path::Path;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The server's side of TLS; none where no certificate is named.
pub fn load(certificate: Option<&Path>, key: Option<&Path>) -> anyhow::Result<Option<ServerConfig>> {
    let (Some(certificate), Some(key)) = (certificate, key) else { return Ok(None) };
    let of = |what: &str, path: &Path| format!("{what} {} is not what it should be", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| of("console.tls_certificate", certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| of("console.tls_key", key))?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private);
    Ok(Some(config.with_context(|| of("console.tls_key, or its pair,", key))?))
}

//! Certificates and keys as files. A key that others on the machine can read is refused, both
//! when it is written (the file is made with mode 0600) and when it is read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The largest PEM file that is read, in bytes: far above any chain, far below a mistake.
pub const PEM_BYTES_MAX: u64 = 1 << 20;

/// A certificate or key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than [`PEM_BYTES_MAX`]: no PEM file of ours.
    #[error("{}: larger than {PEM_BYTES_MAX} bytes, which no certificate or key is", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The key may be read by others than its owner. `chmod 600` it, and think about who has
    /// read it already.
    #[error("{}: mode {mode:04o} lets others read this key; make it 0600", path.display())]
    KeyReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no certificate in PEM.
    #[error("{}: holds no certificate in PEM form", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no private key in PEM.
    #[error("{}: holds no private key in PEM form", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
}

impl PemError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> PemError {
        let path = path.to_owned();
        move |source| PemError::Io { path, source }
    }
}

/// Writes `pem` to a new file that everybody may read, and syncs it.
pub(crate) fn write_certificates(path: &Path, pem: &str) -> Result<(), PemError> {
    create(path, pem, 0o644).map_err(PemError::io(path))
}

/// Writes `pem` to a new file that only its owner may read, and syncs it.
pub(crate) fn write_key(path: &Path, pem: &str) -> Result<(), PemError> {
    create(path, pem, 0o600).map_err(PemError::io(path))
}

/// Never overwrites: a key that is gone cannot be made again.
fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A file of certificates.
pub(crate) struct CertificatesFile {
    /// In the file's order, at least one.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) text: String,
}

/// A file with a private key.
pub(crate) struct KeyFile {
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) text: String,
}

pub(crate) fn read_certificates(path: &Path) -> Result<CertificatesFile, PemError> {
    let file = File::open(path).map_err(PemError::io(path))?;
    let text = read_bounded(path, file)?;
    match certificates(text.as_bytes()) {
        Some(certificates) => Ok(CertificatesFile { certificates, text }),
        None => Err(PemError::NoCertificate {
            path: path.to_owned(),
        }),
    }
}

/// The certificates in `text`; nothing if there are none, or one cannot be read.
pub(crate) fn certificates(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    found.ok().filter(|certificates| !certificates.is_empty())
}

/// The first private key in the file.
pub(crate) fn read_key(path: &Path) -> Result<KeyFile, PemError> {
    let file = File::open(path).map_err(PemError::io(path))?;
    let metadata = file.metadata().map_err(PemError::io(path))?;
    refuse_readable_by_others(path, &metadata)?;
    let text = read_bounded(path, file)?;
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(key) => Ok(KeyFile { key, text }),
        Err(_) => Err(PemError::NoKey {
            path: path.to_owned(),
        }),
    }
}

#[cfg(unix)]
fn refuse_readable_by_others(path: &Path, metadata: &fs::Metadata) -> Result<(), PemError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(PemError::KeyReadableByOthers {
        path: path.to_owned(),
        mode,
    })
}

#[cfg(not(unix))]
fn refuse_readable_by_others(_: &Path, _: &fs::Metadata) -> Result<(), PemError> {
    Ok(())
}

fn read_bounded(path: &Path, file: File) -> Result<String, PemError> {
    let mut text = String::new();
    file.take(PEM_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(PemError::io(path))?;
    if text.len() as u64 > PEM_BYTES_MAX {
        return Err(PemError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

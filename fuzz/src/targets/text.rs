//! Text of others: configuration, histories; and certificates.

use std::io::Write;

use highwater::config::{Config, Layers};
use highwater_net::identity_of;
use highwater_tests::history::{check_lines, read_event, write_event};
use rustls_pki_types::CertificateDer;
use tempfile::NamedTempFile;

use super::memory::{self, SMALL};

/// What is parsed is larger than its text by no more than this; a configuration is read for each
/// option that is set.
const GROWTH: usize = 256;

/// A file; what follows a line with nothing but `--` are options as flags and variables set them,
/// a line each.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (file, settings) = text.split_once("\n--\n").unwrap_or((text, ""));
    let mut layers = Layers::new();
    let read = memory::at_most(GROWTH * file.len() + 4 * SMALL, "a configuration", || {
        layers.file(written(file).path())
    });
    if read.is_err() {
        return;
    }
    for setting in settings.lines() {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        let _ = layers.set(key, value);
        let _ = layers.environment([(format!("HIGHWATER_{key}"), value.to_owned())]);
    }
    if let Ok(config) = layers.finish() {
        assert_eq!(read_back(&config), config);
    }
}

fn written(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("there is a folder for temporary files");
    file.write_all(text.as_bytes())
        .expect("it can be written to");
    file
}

fn read_back(config: &Config) -> Config {
    let file = written(&config.to_toml());
    Config::read(file.path()).expect("what we write, we read")
}

/// Each line that is an event can be written again, and a history is judged whatever it says.
pub(crate) fn history(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for event in text.lines().filter_map(|line| read_event(line).ok()) {
        let again = read_event(&write_event(&event));
        assert_eq!(again.expect("what we write, we read"), event);
    }
    let _ = check_lines(data, Default::default());
}

/// What it says of its holder, if it is a certificate.
pub(crate) fn certificate(data: &[u8]) {
    let certificate = CertificateDer::from(data);
    let bound = GROWTH * data.len() + SMALL;
    let _ = memory::at_most(bound, "a certificate", || identity_of(&certificate).is_ok());
}

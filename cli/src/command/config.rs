//! `highwater config`: what is in force, and where it comes from.

use std::path::PathBuf;

use highwater::config::{Config, Layers, reference_page};
use serde_json::json;

use super::key_value;
use crate::exit::Failure;
use crate::print::{Printer, write_all};

/// The file, the environment and the flags that make a configuration.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Sources {
    /// The node's TOML file, as `highwater init` writes it.
    #[arg(long, short, value_name = "FILE", env = "HIGHWATER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Set one option, as in --set node.shards=2; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Accept clients from other machines although they are neither encrypted nor authenticated.
    #[arg(long)]
    pub(crate) insecure_no_auth: bool,
}

impl Sources {
    /// Lays them over each other.
    ///
    /// # Errors
    /// When one of them is wrong: which, and where it was set.
    pub(crate) fn layers(&self) -> Result<Layers, Failure> {
        let mut layers = Layers::new();
        if let Some(path) = &self.config {
            layers.file(path)?;
        }
        layers.environment(std::env::vars())?;
        for (key, value) in &self.set {
            layers.set(key, value)?;
        }
        if self.insecure_no_auth {
            layers.set("insecure_no_auth", "true")?;
        }
        Ok(layers)
    }

    /// The effective configuration.
    ///
    /// # Errors
    /// As [`Self::layers`], or when values contradict each other.
    pub(crate) fn effective(&self) -> Result<Config, Failure> {
        Ok(self.layers()?.finish()?)
    }
}

/// Print the effective configuration, and where each value comes from.
///
/// Options come from the defaults, the TOML file, HIGHWATER_* variables and --set, the later
/// winning.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  highwater config --config node-0/highwater.toml
  HIGHWATER_NODE__SHARDS=2 highwater config --set node.storage=portable")]
pub(crate) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Print the reference page of all options (docs/config.md) instead.
    #[arg(long)]
    reference: bool,
}

impl Arguments {
    /// Prints it.
    ///
    /// # Errors
    /// When the configuration is wrong.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        if self.reference {
            return write_all(reference_page().as_bytes());
        }
        let layers = self.sources.layers()?;
        layers.finish()?;
        for (key, value, origin) in layers.effective() {
            printer.line(
                || format!("{key} = {value}  # {origin}"),
                || json!({ "key": key, "value": value, "origin": origin.to_string() }),
            )?;
        }
        Ok(())
    }
}

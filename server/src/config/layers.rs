//! Laying file, environment and flags over the defaults, and telling where a value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::options::{OPTIONS, lookup};
use super::{Config, ConfigError};

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In the configuration file.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
    /// On the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// Environment variables that start like options but are none of them.
const NOT_OPTIONS: &[&str] = &[
    "HIGHWATER_BOOTSTRAP",
    "HIGHWATER_CA",
    "HIGHWATER_CONFIG",
    "HIGHWATER_LOG",
];

/// A configuration in the making.
///
/// ```
/// use highwater::config::Layers;
///
/// let mut layers = Layers::new();
/// layers.set("node.shards", "2")?;
/// assert_eq!(layers.finish()?.node.shards, 2);
/// # Ok::<(), highwater::config::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Layers {
    values: toml::Value,
    origins: BTreeMap<String, Origin>,
    base: Option<PathBuf>,
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

impl Layers {
    /// The defaults.
    ///
    /// # Panics
    /// Never: the defaults have a TOML form.
    #[must_use]
    pub fn new() -> Self {
        let values = toml::Value::try_from(Config::default()).expect("defaults have a TOML form");
        Self {
            values,
            origins: BTreeMap::new(),
            base: None,
        }
    }

    /// Lays a TOML file over what is there. Relative paths in the result start at its folder.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or names an option that does not exist.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        let table: toml::Value = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string().trim_end().replace('\n', " "),
        })?;
        self.base = path.parent().map(Path::to_owned);
        self.merge("", table, &Origin::File(path.to_owned()))
    }

    /// Lays environment variables over what is there: those whose name starts with
    /// `HIGHWATER_`.
    ///
    /// # Errors
    /// When one names an option that does not exist, or its value does not fit.
    pub fn environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Some(key) = name.strip_prefix("HIGHWATER_") else {
                continue;
            };
            if NOT_OPTIONS.contains(&name.as_str()) {
                continue;
            }
            let key = key.to_lowercase().replace("__", ".");
            self.set_text(&key, &value, Origin::Environment(name))?;
        }
        Ok(())
    }

    /// Sets one option from the command line.
    ///
    /// # Errors
    /// When there is no such option, or the value does not fit it.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        self.set_text(key, value, Origin::Flag)
    }

    /// The effective configuration, with relative paths resolved, validated.
    ///
    /// # Errors
    /// When a value has the wrong type or range, or values contradict each other.
    pub fn finish(&self) -> Result<Config, ConfigError> {
        let mut config = self.decode(&self.values, "", &Origin::Default)?;
        if let Some(base) = &self.base {
            for path in [
                &mut config.node.data_dir,
                &mut config.tls.ca,
                &mut config.tls.certificate,
                &mut config.tls.key,
                &mut config.tls.client_certificate,
                &mut config.tls.client_key,
            ] {
                *path = base.join(&*path);
            }
        }
        config.validate()?;
        Ok(config)
    }

    /// Where the value of an option was set last.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Option, value and origin of each, in the order of the reference.
    pub fn effective(&self) -> impl Iterator<Item = (&'static str, String, Origin)> + '_ {
        OPTIONS.iter().map(|option| {
            let value = lookup(&self.values, option.key).map_or_else(String::new, render);
            (option.key, value, self.origin(option.key))
        })
    }

    fn merge(
        &mut self,
        prefix: &str,
        value: toml::Value,
        origin: &Origin,
    ) -> Result<(), ConfigError> {
        match value {
            toml::Value::Table(table) if !is_option(prefix) => {
                for (name, inner) in table {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    self.merge(&format!("{prefix}{dot}{name}"), inner, origin)?;
                }
                Ok(())
            }
            value => self.put(prefix, value, origin.clone()),
        }
    }

    /// Reads the text as the TOML type that the option has: a string needs no quotes.
    fn set_text(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let present = lookup(&self.values, key);
        let value = match present {
            Some(toml::Value::String(_)) => toml::Value::String(text.to_owned()),
            _ => toml::from_str::<toml::Value>(&format!("v = {text}"))
                .ok()
                .and_then(|table| table.get("v").cloned())
                .unwrap_or_else(|| toml::Value::String(text.to_owned())),
        };
        self.put(key, value, origin)
    }

    fn put(&mut self, key: &str, value: toml::Value, origin: Origin) -> Result<(), ConfigError> {
        if !is_option(key) {
            return Err(ConfigError::Unknown {
                origin,
                key: key.to_owned(),
                hint: nearest(key).map_or_else(String::new, |near| format!("; is it `{near}`?")),
            });
        }
        let mut candidate = self.values.clone();
        let mut slot = &mut candidate;
        for part in key.split('.') {
            slot = slot.get_mut(part).expect("every option has a default");
        }
        *slot = value;
        self.decode(&candidate, key, &origin)?;
        self.values = candidate;
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }

    fn decode(
        &self,
        values: &toml::Value,
        key: &str,
        origin: &Origin,
    ) -> Result<Config, ConfigError> {
        values
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError::Value {
                origin: origin.clone(),
                key: key.to_owned(),
                reason: error.message().to_owned(),
            })
    }
}

fn render(value: &toml::Value) -> String {
    value.to_string()
}

fn is_option(key: &str) -> bool {
    OPTIONS.iter().any(|option| option.key == key)
}

/// The option that shares the last part or the longest start with a wrong key.
fn nearest(key: &str) -> Option<&'static str> {
    let last = key.rsplit('.').next().unwrap_or(key);
    OPTIONS
        .iter()
        .map(|option| option.key)
        .find(|known| known.rsplit('.').next() == Some(last))
        .or_else(|| {
            OPTIONS
                .iter()
                .map(|option| (common_prefix(option.key, key), option.key))
                .max()
                .filter(|(shared, _)| *shared >= 4)
                .map(|(_, known)| known)
        })
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str, value: &str) -> [(String, String); 1] {
        [(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn later_layers_win_and_say_where_they_come_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("highwater.toml");
        std::fs::write(&path, "[node]\nshards = 2\nid = 7\n").unwrap();
        let mut layers = Layers::new();
        layers.file(&path).unwrap();
        layers
            .environment(environment("HIGHWATER_NODE__SHARDS", "3"))
            .unwrap();
        assert_eq!(layers.finish().unwrap().node.shards, 3);
        layers.set("node.shards", "4").unwrap();
        let config = layers.finish().unwrap();
        assert_eq!((config.node.id, config.node.shards), (7, 4));
        assert_eq!(layers.origin("node.shards"), Origin::Flag);
        assert_eq!(layers.origin("node.id"), Origin::File(path));
        assert_eq!(layers.origin("listen.kafka"), Origin::Default);
    }

    #[test]
    fn relative_paths_start_at_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("highwater.toml");
        std::fs::write(&path, "[node]\ndata_dir = \"d\"\n").unwrap();
        let mut layers = Layers::new();
        layers.file(&path).unwrap();
        let config = layers.finish().unwrap();
        assert_eq!(config.node.data_dir, folder.path().join("d"));
    }

    #[test]
    fn a_wrong_key_names_its_origin_and_the_nearest() {
        let error = Layers::new().set("shards", "2").unwrap_err().to_string();
        assert!(
            error.starts_with("command line: there is no option `shards`"),
            "{error}"
        );
        assert!(error.contains("node.shards"), "{error}");
    }

    #[test]
    fn a_wrong_value_names_its_option() {
        let mut layers = Layers::new();
        let error = layers
            .environment(environment("HIGHWATER_NODE__SHARDS", "many"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("HIGHWATER_NODE__SHARDS: `node.shards`"),
            "{error}"
        );
        assert_eq!(
            layers.finish().unwrap(),
            Config::default(),
            "nothing of it stays"
        );
    }

    #[test]
    fn a_string_needs_no_quotes() {
        let mut layers = Layers::new();
        layers.set("node.storage", "portable").unwrap();
        layers.set("listen.kafka", "127.0.0.1:1").unwrap();
        assert_eq!(layers.finish().unwrap().listen.kafka.port(), 1);
    }

    #[test]
    fn clients_variables_are_not_options() {
        Layers::new()
            .environment(environment("HIGHWATER_CA", "ca.pem"))
            .unwrap();
    }
}

//! The plugin: a Wasm component with a name, in immutable versions that are named by their digest.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::event::{Tenant, Violation};

/// The name of a plugin: 1 to 63 of `a` to `z`, `0` to `9` and `-`, beginning with a letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PluginName(String);

impl PluginName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PluginName {
    type Error = Violation;

    fn try_from(name: String) -> Result<PluginName, Violation> {
        let letter = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
        if (1..=63).contains(&name.len())
            && name.as_bytes()[0].is_ascii_lowercase()
            && name.bytes().all(letter)
        {
            Ok(PluginName(name))
        } else {
            let rule = "must be 1 to 63 of `a` to `z`, `0` to `9` and `-`, beginning with a letter";
            Err(Violation::new("name", rule))
        }
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which functions a plugin has: the world of `plugin.wit` that it targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum World {
    #[serde(rename = "hookyard:plugin/filter-plugin@1")]
    Filter,
    #[serde(rename = "hookyard:plugin/transform-plugin@1")]
    Transform,
    #[serde(rename = "hookyard:plugin/plugin@1")]
    Both,
}

/// How much a line of a plugin's log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub const ALL: [LogLevel; 5] =
        [LogLevel::Trace, LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];

    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        }
    }

    pub fn parse(text: &str) -> Option<LogLevel> {
        LogLevel::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// A line that a plugin wrote during a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub level: LogLevel,
    pub message: String,
}

/// What a plugin says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub summary: String,
    /// JSON Schema 2020-12 of the configuration of a step.
    pub config_schema: Option<Value>,
    /// The JSON Pointers that the plugin can read; none: it can read everything.
    pub reads: Option<Vec<String>>,
}

/// One upload. Immutable.
#[derive(Clone, Debug, Serialize)]
pub struct PluginVersion {
    pub name: PluginName,
    /// None for a plugin that the operator shares with all tenants.
    #[serde(skip)]
    pub tenant: Option<Tenant>,
    pub digest: Digest,
    pub size_bytes: u64,
    pub world: World,
    pub manifest: Manifest,
    pub created_at_ms: i64,
    /// Whether a step that follows the name runs this version.
    pub current: bool,
    /// Why no new step is to name it, where its owner said so. Steps that have it go on.
    pub deprecated: Option<String>,
}

/// How a subscription names a plugin: by its name, and so following its current version, or by a
/// digest, and so pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PluginRef {
    Name(PluginName),
    Digest(Digest),
}

impl TryFrom<String> for PluginRef {
    type Error = Violation;

    fn try_from(text: String) -> Result<PluginRef, Violation> {
        if text.starts_with("sha256:") {
            text.parse().map(PluginRef::Digest)
        } else {
            PluginName::try_from(text).map(PluginRef::Name)
        }
    }
}

impl From<PluginRef> for String {
    fn from(it: PluginRef) -> String {
        match it {
            PluginRef::Name(name) => name.0,
            PluginRef::Digest(digest) => digest.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_follows_a_name_or_pins_a_digest() {
        let name = PluginRef::try_from("minimize".to_owned()).unwrap();
        assert!(matches!(name, PluginRef::Name(_)));
        let digest = PluginRef::try_from(Digest::of(b"x").to_string()).unwrap();
        assert!(matches!(digest, PluginRef::Digest(_)));
        for wrong in ["", "Minimize", "a/b", "sha256:0", "9a", &"a".repeat(64)] {
            assert!(PluginRef::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}

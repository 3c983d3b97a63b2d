//! The folder of a plugin, as its `hookyard.toml` describes it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use hookyard_nouns::plugin::PluginName;
use serde::Deserialize;

const FILE: &str = "hookyard.toml";

/// What `hookyard.toml` says, and where it lies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Project {
    #[serde(skip)]
    pub(super) folder: PathBuf,
    pub(super) name: PluginName,
    /// Shell commands, run in the folder one after the other.
    #[serde(default)]
    pub(super) build: Vec<String>,
    /// What comes of them: a path in the folder.
    pub(super) file: PathBuf,
    #[serde(default)]
    pub(super) needs: Vec<Need>,
}

/// Something that the build needs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Need {
    /// A shell command that succeeds where it is there.
    pub(super) test: String,
    /// How one gets it, in one line.
    pub(super) cure: String,
}

impl Project {
    pub(super) fn open(folder: &Path) -> anyhow::Result<Project> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read `{}`; `hookyard plugin new` writes one", path.display())
        })?;
        let project: Project =
            toml::from_str(&text).with_context(|| format!("`{}` is wrong", path.display()))?;
        Ok(Project { folder: folder.to_owned(), ..project })
    }

    /// The built plugin.
    pub(super) fn read_file(&self) -> anyhow::Result<Vec<u8>> {
        let path = self.folder.join(&self.file);
        std::fs::read(&path).with_context(|| {
            format!("cannot read `{}`; `hookyard plugin build` makes it", path.display())
        })
    }
}

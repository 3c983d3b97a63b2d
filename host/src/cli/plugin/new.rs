//! `hookyard plugin new`

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use hookyard_nouns::plugin::PluginName;

use crate::cli::print::say;

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// What the plugin is written in. A script in JavaScript needs no folder: `hookyard plugin push --name
    /// NAME FILE.js`
    #[arg(long, value_name = "LANGUAGE")]
    lang: Language,
    /// The name of the plugin: 1 to 63 of `a` to `z`, `0` to `9` and `-`, beginning with a letter
    name: String,
    /// The new folder. Empty: the name of the plugin
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    Rust,
    Typescript,
    Python,
    C,
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Typescript => "typescript",
            Language::Python => "python",
            Language::C => "c",
        }
    }
}

impl New {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let name = PluginName::try_from(self.name).map_err(|err| anyhow::anyhow!("{err}"))?;
        let folder = self.folder.unwrap_or_else(|| PathBuf::from(name.as_str()));
        let is_new = std::fs::read_dir(&folder).is_ok_and(|mut it| it.next().is_none());
        ensure!(is_new || !folder.exists(), "`{}` exists already", folder.display());
        let language = self.lang.name();
        let is_sdk = language == "rust" && name.as_str() == "hookyard-plugin";
        ensure!(!is_sdk, "`{name}` is the crate that plugins in Rust use: choose another name");
        let template = TEMPLATES.iter().filter_map(|(path, text)| {
            Some((path.strip_prefix(language)?.strip_prefix('/')?, *text))
        });
        for (path, text) in template {
            write(&folder.join(path), &text.replace("{{name}}", name.as_str()))?;
        }
        write(&folder.join("wit/plugin.wit"), CONTRACT)?;
        if let Language::Rust = self.lang {
            for (path, text) in SDK {
                write(&folder.join("sdk").join(path), text)?;
            }
        }
        say!("wrote {}: a plugin in {language}", folder.display())?;
        say!("next: cd {} && hookyard plugin build && hookyard plugin test", folder.display())?;
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let context = || format!("cannot write `{}`", path.display());
    let folder = path.parent().expect("it is in a folder");
    std::fs::create_dir_all(folder).with_context(context)?;
    std::fs::write(path, text).with_context(context)
}

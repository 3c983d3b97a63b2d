//! The router's engine on this machine, with the router's limits: those of its settings, as far as the
//! environment gives them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use hookyard_nouns::digest::Digest;
use tempfile::TempDir;

use crate::config::{Given, Settings};
use crate::wasm::{CodeBytes, Equipment, Purpose, Runtime, Uploaded, Workshop};

/// Settings without flags.
#[derive(Debug, Parser)]
struct Environment {
    #[command(flatten)]
    given: Given,
}

pub(super) fn settings() -> anyhow::Result<Settings> {
    let environment = Environment::try_parse_from(["hookyard"]);
    Ok(environment.context("the environment has a setting that is wrong")?.given.settle())
}

/// An engine that counts what runs cost.
pub(super) struct Local {
    pub(super) runtime: Arc<Runtime>,
    pub(super) settings: Settings,
    /// Compiled code is kept for as long as the command runs.
    _cache: TempDir,
}

impl Local {
    /// `files` are plugins that are not uploaded to it, but asked for.
    pub(super) fn new(files: Vec<Bytes>) -> anyhow::Result<Local> {
        let settings = settings()?;
        let cache = tempfile::tempdir()?;
        let workshop = Workshop::open(Equipment {
            compiler: settings.compiler()?,
            limits: settings.limits(1),
            forms: vec![Purpose::Measure],
            folder: cache.path().to_owned(),
            key: rand::random(),
            files: Box::new(move |digest| {
                Ok(files.iter().find(|file| Digest::of(file) == digest).cloned())
            }),
            hour_max: Duration::MAX,
        })?;
        let kept = CodeBytes { plugins_max: settings.plugin_loaded_bytes_max, images_max: 0 };
        let runtime = Runtime::new(&workshop, Purpose::Measure, kept)?;
        Ok(Local { runtime, settings, _cache: cache })
    }

    /// Checks, compiles and tries a file as an upload would.
    pub(super) fn upload(&self, file: &[u8], is_script: bool) -> anyhow::Result<Uploaded> {
        let uploaded = match is_script {
            true => self.runtime.upload_script(&None, file),
            false => self.runtime.upload(&None, file, false),
        };
        uploaded.map_err(|refusal| anyhow::anyhow!("{} ({})", refusal.detail, refusal.code))
    }
}

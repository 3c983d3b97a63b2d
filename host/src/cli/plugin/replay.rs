//! `hookyard plugin replay`

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::rendering::Rendered;
use http::Method;
use serde::Deserialize;

use super::local::Local;
use super::remote::Router;
use crate::cli::print::say;
use crate::formats::Formats;
use crate::render::render;
use crate::trial::Reproduction;

#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    #[command(flatten)]
    router: Router,
    /// The id of the delivery
    delivery: String,
    /// Write the body to a file
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// Where the files are to be had that the body was made with.
#[derive(Deserialize)]
struct Plugins {
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    digest: Digest,
    href: Option<String>,
}

impl Replay {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = self.router.client()?;
        let path = format!("/v1/deliveries/{}/reproduce", self.delivery);
        let path = self.router.path(&path, &[]);
        let answer = client.ask(Method::POST, &path, "application/json", "").await?;
        let other = "the router answers something else";
        let Plugins { plugins } = serde_json::from_slice(&answer).context(other)?;
        let it: Reproduction = serde_json::from_slice(&answer).context(other)?;
        let mut files = Vec::new();
        for Plugin { digest, href } in plugins {
            let href = href.with_context(|| format!("{digest} is no longer there"))?;
            files.push(Bytes::from(client.bytes(&self.router.path(&href, &[])).await?));
        }
        tokio::task::spawn_blocking(move || show(&it, files, self.output)).await?
    }
}

fn show(it: &Reproduction, files: Vec<Bytes>, output: Option<PathBuf>) -> anyhow::Result<()> {
    let local = Local::new(files)?;
    let formats = Formats::new(&local.settings.choices());
    let format = formats.get(&it.rendering.format).context("this program lacks the format")?;
    let event = it.event().map_err(|err| anyhow::anyhow!("{err:?}"))?;
    let (event, bytes_max) = (Arc::new(event), local.settings.delivery_bytes_max);
    local.runtime.prepare(&it.rendering.steps)?;
    let (rendered, runs) = render(&local.runtime, format, &event, &it.rendering, bytes_max)?;
    for run in &runs {
        let (fuel, micros) = (run.fuel.unwrap_or(0), run.time.as_micros());
        say!("step {} {}: {fuel} fuel, {micros} µs", run.step + 1, run.plugin)?;
        for line in &run.log {
            say!("  log {}: {}", line.level.as_str(), line.message)?;
        }
    }
    match rendered {
        Rendered::Bodies(bodies) => {
            let body = bodies.get(usize::from(it.part)).context("the event has no such part")?;
            let digest = Digest::of(&body.bytes);
            say!("body {digest}, {} bytes", body.bytes.len())?;
            match &output {
                Some(path) => std::fs::write(path, &body.bytes)?,
                None => say!("{}", String::from_utf8_lossy(&body.bytes))?,
            }
            if let Some(sent) = it.body_digest {
                ensure!(digest == sent, "what was sent has another digest: {sent}");
                say!("bit for bit what was sent")?;
            }
        }
        Rendered::Filtered(reason) => say!("dropped: {}", serde_json::to_string(&reason)?)?,
        Rendered::Failed(reason) => {
            say!("failed: {}", serde_json::to_string(&reason)?)?;
            if let Some(recorded) = &it.reason {
                ensure!(recorded.code == reason.code, "it was recorded as `{}`", recorded.code);
            }
        }
    }
    Ok(())
}

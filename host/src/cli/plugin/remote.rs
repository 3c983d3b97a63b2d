//! `hookyard plugin push`, `logs` and `try`: what a running router does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use hookyard_nouns::json::Json;
use http::Method;
use serde::Serialize;
use serde_json::Value;

use super::Here;
use crate::cli::client::Client;
use crate::cli::print::say;

/// How often a router is asked for new lines.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const JSON: &str = "application/json";
/// What a file of WebAssembly begins with.
const WASM: &[u8] = b"\0asm";

/// Which router, and as whom.
#[derive(Debug, clap::Args)]
pub(super) struct Router {
    /// Where the router is
    #[arg(long, value_name = "URL", env = "HOOKYARD_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The token that calls carry
    #[arg(long, value_name = "TOKEN", env = "HOOKYARD_TOKEN", hide_env_values = true)]
    token: String,
    /// The tenant, where the token is the operator's
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

impl Router {
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Client::new(self.url.trim_end_matches('/').to_owned(), self.token.clone())
    }

    /// A path with these parameters, and with the tenant.
    pub(super) fn path(&self, path: &str, parameters: &[(&str, &str)]) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let tenant = self.tenant.as_deref().map(|it| ("tenant", it));
        query.extend_pairs(parameters.iter().copied().chain(tenant));
        match query.finish() {
            query if query.is_empty() => path.to_owned(),
            query => format!("{path}?{query}"),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Push {
    #[command(flatten)]
    router: Router,
    #[command(flatten)]
    here: Here,
    /// A file in the place of the built one: WebAssembly, or a script that ends with `.js`
    file: Option<PathBuf>,
    /// The name of the plugin, in the place of the one in `hookyard.toml`
    #[arg(long)]
    name: Option<String>,
}

impl Push {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (name, path) = match (self.name, self.file) {
            (Some(name), Some(file)) => (name, file),
            (name, file) => {
                let project = self.here.project()?;
                let built = project.folder.join(&project.file);
                (name.unwrap_or_else(|| project.name.to_string()), file.unwrap_or(built))
            }
        };
        let file = std::fs::read(&path).with_context(|| {
            format!("cannot read `{}`; `hookyard plugin build` makes it", path.display())
        })?;
        let is_script = path.extension().is_some_and(|it| it == "js");
        ensure!(
            is_script || file.starts_with(WASM),
            "`{}` is neither WebAssembly nor a script that ends with `.js`; `hookyard plugin build` \
             builds a plugin, and `hookyard plugin push` without a file uploads what it has built",
            path.display()
        );
        let media_type = if is_script { "text/javascript" } else { "application/wasm" };
        let path = self.router.path(&format!("/v1/plugins/{name}/versions"), &[]);
        let it = self.router.client()?.call(Method::POST, &path, media_type, file).await?;
        say!("pushed {name}: {}", text(&it["digest"]))?;
        say!("  world      {}", text(&it["world"]))?;
        say!("  compiled   in {} ms; a run of nothing takes {} µs", it["compile_ms"], {
            &it["empty_run_us"]
        })?;
        Ok(())
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    #[command(flatten)]
    router: Router,
    #[command(flatten)]
    here: Here,
    /// The name of the plugin, in the place of the one in `hookyard.toml`
    #[arg(long)]
    name: Option<String>,
    /// Go on with new lines, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Only lines that matter at least this much: trace, debug, info, warn, error
    #[arg(long, default_value = "trace")]
    level: String,
}

impl Logs {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let name = name(self.name, &self.here)?;
        let client = self.router.client()?;
        let path = format!("/v1/plugins/{name}/logs");
        let read = async |parameters: &[(&str, &str)]| {
            let path = self.router.path(&path, parameters);
            let answer = client.call(Method::GET, &path, JSON, "").await?;
            anyhow::Ok(answer["lines"].as_array().cloned().unwrap_or_default())
        };
        let mut lines = read(&[("level", &self.level)]).await?;
        lines.reverse();
        loop {
            let after = lines.last().map(|line| text(&line["seq"]).to_owned());
            for line in &lines {
                show(line)?;
            }
            if !self.follow {
                return Ok(());
            }
            let mut after = after.unwrap_or_else(|| "0".to_owned());
            lines = loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let new = read(&[("level", &self.level), ("after", &after)]).await?;
                if let Some(last) = new.last() {
                    after = text(&last["seq"]).to_owned();
                    break new;
                }
            };
        }
    }
}

fn show(line: &Value) -> anyhow::Result<()> {
    let of = |name: &str| text(&line[name]).to_owned();
    say!("{} {:5} {} [event {}]", of("at"), of("level"), of("message"), of("event"))
}

#[derive(Debug, clap::Args)]
pub(super) struct Try {
    #[command(flatten)]
    router: Router,
    #[command(flatten)]
    here: Here,
    /// The name of the plugin, in the place of the one in `hookyard.toml`
    #[arg(long)]
    name: Option<String>,
    /// The configuration, as JSON
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
    /// A file with an event in the CloudEvents JSON format, or a case
    #[arg(long, value_name = "PATH")]
    event: Option<PathBuf>,
    /// The id of an event that the router has accepted
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// A sample of a format: `FORMAT/TYPE`
    #[arg(long, value_name = "SAMPLE")]
    sample: Option<String>,
}

impl Try {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let name = name(self.name, &self.here)?;
        let (mut event, mut config) = (None, parse(&self.config, "the configuration")?);
        if let Some(path) = &self.event {
            let (given, its_config) = event_file(path)?;
            event = Some(given);
            config = its_config.unwrap_or(config);
        }
        let sample = self.sample.as_ref().map(|sample| {
            let (format, event_type) = sample
                .split_once('/')
                .context("a sample is FORMAT/TYPE, as in kajabi/order_created")?;
            anyhow::Ok(Sample { format, event_type })
        });
        let body = Tried { config, event, event_id: self.event_id, sample: sample.transpose()? };
        let given = [body.event.is_some(), body.event_id.is_some(), body.sample.is_some()];
        ensure!(
            given.iter().filter(|it| **it).count() == 1,
            "give one of --event, --event-id and --sample FORMAT/TYPE"
        );
        let path = self.router.path(&format!("/v1/plugins/{name}/try"), &[]);
        let body = serde_json::to_vec(&body)?;
        let answer = self.router.client()?.ask(Method::POST, &path, JSON, body).await?;
        say!("{}", Json::parse_event(answer.into())?.pretty())?;
        Ok(())
    }
}

/// A body that the API takes to try a plugin.
#[derive(Serialize)]
struct Tried<'a> {
    config: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<Sample<'a>>,
}

#[derive(Serialize)]
struct Sample<'a> {
    format: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
}

/// An event, or a case with an event and a configuration.
fn event_file(path: &Path) -> anyhow::Result<(Json, Option<Json>)> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let it = parse(&text, &format!("`{}`", path.display()))?;
    match it.get("/event") {
        Some(event) if it.get("/specversion").is_none() && event.members().is_some() => {
            let config = it.get("/config");
            Ok((event, config))
        }
        _ => Ok((it, None)),
    }
}

fn parse(text: &str, what: &str) -> anyhow::Result<Json> {
    Json::parse_event(text.to_owned().into()).with_context(|| format!("{what} is not JSON"))
}

fn name(given: Option<String>, here: &Here) -> anyhow::Result<String> {
    given.map_or_else(|| Ok(here.project()?.name.to_string()), Ok)
}

fn text(it: &Value) -> &str {
    it.as_str().unwrap_or_default()
}

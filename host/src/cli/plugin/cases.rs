//! The cases of a plugin: events, and what is expected of them. One file each.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use hookyard_nouns::cloudevent::{Publication, structured};
use hookyard_nouns::event::{Event, Tenant, format_name};
use hookyard_nouns::json::{Json, Spelled};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::trial::Verdict;

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    #[serde(skip)]
    pub(super) path: PathBuf,
    /// The file, as its author wrote it.
    #[serde(skip)]
    text: String,
    #[serde(default = "Json::empty_object")]
    pub(super) config: Json,
    /// In the CloudEvents JSON format, as it would be published: the plugin sees it as its author wrote it.
    event: Box<RawValue>,
    #[serde(default)]
    pub(super) expect: Spelled,
}

/// The cases in a folder, by their names.
pub(super) fn read_all(folder: &Path) -> anyhow::Result<Vec<Case>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read the cases in `{}`", folder.display()))?;
    let mut cases = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "json") {
            let text = std::fs::read_to_string(&path)?;
            let case: Case = serde_json::from_str(&text)
                .with_context(|| format!("`{}` is not a case", path.display()))?;
            cases.push(Case { path, text, ..case });
        }
    }
    anyhow::ensure!(!cases.is_empty(), "there are no cases in `{}`", folder.display());
    cases.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(cases)
}

impl Case {
    pub(super) fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(super) fn event(&self) -> anyhow::Result<Arc<Event>> {
        event(&self.event).with_context(|| format!("the event of `{}` is wrong", self.name()))
    }

    /// Writes into the case what the plugin really answers, and leaves the rest as its author wrote it.
    pub(super) fn update(&self, verdict: &Verdict) -> anyhow::Result<()> {
        let mut expect = Json::parse_event(serde_json::to_vec(verdict)?.into())?;
        if let Verdict::Fail { .. } = verdict {
            // The texts of failures change with each build.
            expect = expect.edit([("/reason/detail", None)])?;
        }
        let expect = expect.pretty().replace('\n', "\n  ");
        let updated =
            Json::parse_event(self.text.clone().into())?.edit([("/expect", Some(&*expect))])?;
        std::fs::write(&self.path, format!("{updated}\n"))
            .with_context(|| format!("cannot write `{}`", self.path.display()))
    }

    /// Whether this is what was expected. Numbers are to be written alike, and the detail of a reason only counts
    /// where it is expected.
    pub(super) fn is_met(&self, verdict: &Verdict) -> bool {
        let real = serde_json::to_vec(verdict).expect("a verdict is JSON");
        let Some(Spelled(mut real)) = Spelled::read(&real) else { return false };
        let Spelled(mut expected) = self.expect.clone();
        if expected["reason"]["detail"].is_null()
            && let Some(Value::Object(reason)) = real.get_mut("reason")
        {
            reason.remove("detail");
        }
        if let Some(Value::Object(reason)) = expected.get_mut("reason") {
            reason.retain(|_, it| !it.is_null());
        }
        for members in [&mut expected, &mut real].into_iter().filter_map(Value::as_object_mut) {
            members.retain(|_, it| !it.is_null());
        }
        expected == real
    }
}

/// An event as if it had just been accepted, always at the same time.
fn event(text: &RawValue) -> anyhow::Result<Arc<Event>> {
    let said = |refusal: hookyard_nouns::refusal::Refusal| anyhow::anyhow!("{refusal:?}");
    let sent = structured(Bytes::from(text.get().to_owned())).map_err(said)?;
    let Publication { format, alternate_ids, content, .. } = sent.read().map_err(|violations| {
        let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", all.join("; "))
    })?;
    Ok(Arc::new(Event {
        id: Uuid::nil(),
        tenant: Tenant::new("test").expect("it is a name"),
        format: format_name(format.as_deref().unwrap_or("cloudevents")),
        content: Arc::new(content),
        alternate_ids,
        accepted_at_ms: 1_700_000_000_000,
        revision: 0,
    }))
}

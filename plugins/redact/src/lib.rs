//! Redacts an event's data: at given places, and wherever members of given names are.
//!
//! ```json
//! {"fields": ["email", "phone"], "pointers": ["/customer/name"], "with": "hash", "salt": "k7-…"}
//! ```

mod walk;

use std::collections::BTreeSet;

use hookyard_plugin::prelude::*;
use sha2::{Digest as _, Sha256};

use walk::Found;

/// Each edit has the router look for its place from the start of the data. More of them than this are
/// answered as one new text, in which we keep the bytes between them ourselves.
const EDITS_MAX: usize = 16;

/// What is redacted, and what comes in its place. Data that are not JSON pass as they are.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = [{"required": ["pointers"]}, {"required": ["fields"]}],
    "dependentSchemas" = {
        "mask": {"properties": {"with": {"const": "mask"}}},
        "salt": {"properties": {"with": {"const": "hash"}}, "required": ["with"]},
    },
))]
struct Redact {
    /// JSON Pointers (RFC 6901) into the data as they came. One that points at nothing changes nothing.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100))]
    #[schemars(inner(length(max = 1024), regex(pattern = r"^(/([^/~]|~[01])*)+$")))]
    pointers: BTreeSet<String>,
    /// Names of members that are redacted wherever they are in the data, with all that is in them.
    /// Upper and lower case are told apart.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100), inner(length(max = 256)))]
    fields: BTreeSet<String>,
    /// What happens to a value.
    #[serde(default)]
    with: With,
    /// The text that `mask` puts in the place of a value.
    #[serde(default = "stars")]
    #[schemars(length(max = 256))]
    mask: String,
    /// What `hash` puts before each value. Without a secret one, a hash of something short, such as a
    /// phone number, can be traced back by trying all of them.
    #[serde(default)]
    #[schemars(length(max = 256))]
    salt: String,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum With {
    /// The value goes, and its name with it.
    Remove,
    /// A text that is always the same takes the value's place.
    #[default]
    Mask,
    /// `sha256:` and the SHA-256, in hex, of the salt and the value: of a text its characters in UTF-8,
    /// without quotes and escapes; of anything else its JSON as it is written. The same values can so
    /// be told to be the same.
    Hash,
}

fn stars() -> String {
    "***".to_owned()
}

impl Transform for Redact {
    fn transform(&self, event: &Event, _: &Context) -> Result<Verdict> {
        let Some(json) = event.raw("") else { return Ok(Verdict::Pass) };
        let data = String::from_utf8(json)?;
        let found = walk::find(&data, &self.pointers, &self.fields)?;
        Ok(match found.len() {
            0 => Verdict::Pass,
            1..=EDITS_MAX => self.edits(&found)?.into(),
            _ => Output::new().text(self.rewritten(&data, &found)?).into(),
        })
    }
}

impl Redact {
    fn edits(&self, found: &[Found<'_>]) -> Result<Output> {
        // From the last to the first: a removed item moves only those that are behind it.
        found.iter().rev().try_fold(Output::new(), |output, it| match self.instead(it.value)? {
            Some(text) => output.put(&it.pointer, &text),
            None => Ok(output.remove(&it.pointer)),
        })
    }

    fn rewritten(&self, data: &str, found: &[Found<'_>]) -> Result<String> {
        let mut new = String::with_capacity(data.len());
        let mut rest = 0;
        for it in found {
            let end = it.value_start + it.value.len();
            if let Some(text) = self.instead(it.value)? {
                new += &data[rest..it.value_start];
                new += &serde_json::to_string(&text)?;
                rest = end;
                continue;
            }
            new += &data[rest..it.entry_start];
            rest = end;
            // An entry goes together with the comma behind it; the last one with the comma before it.
            if let Some(behind) = data[end..].trim_start().strip_prefix(',') {
                rest = data.len() - behind.trim_start().len();
            } else if let Some(before) = new.trim_end().strip_suffix(',') {
                new.truncate(before.len());
            }
        }
        new += &data[rest..];
        Ok(new)
    }

    /// The text that takes a value's place; none where the value goes.
    fn instead(&self, value: &str) -> Result<Option<String>> {
        Ok(match self.with {
            With::Remove => None,
            With::Mask => Some(self.mask.clone()),
            With::Hash if value.starts_with('"') => {
                Some(self.hash(&serde_json::from_str::<String>(value)?))
            }
            With::Hash => Some(self.hash(value)),
        })
    }

    fn hash(&self, value: &str) -> String {
        let hash = Sha256::new().chain_update(&self.salt).chain_update(value).finalize();
        format!("sha256:{hash:x}")
    }
}

export!(Redact: transform);

#[cfg(test)]
mod tests;

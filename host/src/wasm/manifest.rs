//! What a plugin says of itself, checked before anybody relies on it.

use hookyard_nouns::plugin::Manifest;

use super::Refusal;
#[cfg(feature = "compiler")]
use crate::schemas::Schema;

/// How long the texts may be, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;
const READS_MAX: usize = 256;

/// # Errors
///
/// A text is too long, or what is to be read is not named by JSON Pointers.
pub(super) fn check(manifest: &Manifest) -> Result<(), Refusal> {
    for (field, text) in
        [("name", &manifest.name), ("version", &manifest.version), ("summary", &manifest.summary)]
    {
        if text.len() > TEXT_BYTES_MAX {
            return refuse(format!("`describe` gives a `{field}` of over {TEXT_BYTES_MAX} bytes"));
        }
    }
    let reads = manifest.reads.as_deref().unwrap_or_default();
    if reads.len() > READS_MAX {
        return refuse(format!("`describe` declares more than {READS_MAX} reads"));
    }
    match reads.iter().find(|it| !it.is_empty() && !it.starts_with('/')) {
        Some(wrong) => refuse(format!("`describe` declares `{wrong}`, which is no JSON Pointer")),
        None => Ok(()),
    }
}

/// Makes the schema ready, which may take much time and memory: only for the compiler's process.
///
/// # Errors
///
/// It is not a schema that we take.
#[cfg(feature = "compiler")]
pub(super) fn schema(source: &serde_json::Value) -> Result<Schema, Refusal> {
    Schema::strange(source).or_else(|why| {
        refuse(format!("the `config-schema` that `describe` gives cannot be used: it {why}"))
    })
}

fn refuse<T>(detail: String) -> Result<T, Refusal> {
    Err(Refusal::new("bad-manifest", detail))
}

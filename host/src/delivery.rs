//! The delivery: one event, or a part of one, that is owed to one subscription.

use serde::{Deserialize, Serialize};

/// Why something is as it is. `code` is short and stable; `detail` is for reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Reason {
    pub fn code(code: &str) -> Reason {
        Reason { code: code.to_owned(), detail: None }
    }
}

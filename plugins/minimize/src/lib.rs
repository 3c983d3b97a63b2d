//! Takes parts of an event's data away: MyPreferences' `IsMinimized`, and whoever wants thin events.

use hookyard_plugin::prelude::*;

/// What is taken away.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Minimize {
    /// JSON Pointers (RFC 6901) into the data. One that points at nothing changes nothing.
    #[schemars(length(min = 1), extend("items" = {
        "type": "string",
        "format": "json-pointer",
        "description": "must be a JSON Pointer (RFC 6901) into the data",
    }))]
    remove: Vec<String>,
}

impl Transform for Minimize {
    fn transform(&self, _: &Event, _: &Context) -> Result<Verdict> {
        let output = self.remove.iter().fold(Output::new(), |output, it| output.remove(it));
        Ok(output.into())
    }
}

// It says what to remove without looking.
export!(Minimize: transform, reads: []);

#[cfg(test)]
mod tests {
    use hookyard_plugin::stand_in::Sample;

    use super::*;

    fn check(remove: &[&str], before: &str, after: &str) {
        let plugin = Minimize { remove: remove.iter().map(|it| (*it).to_owned()).collect() };
        let sample = Sample::json(before);
        assert_eq!(sample.after(&sample.transform(&plugin).unwrap()), after);
    }

    #[test]
    fn what_is_listed_goes() {
        check(&["/Data", "/PreviousData"], r#"{"Data":[1],"ProfileId":7}"#, r#"{"ProfileId":7}"#);
    }

    #[test]
    fn what_is_not_there_changes_nothing() {
        check(&["/a/b", "/c"], r#"{"a":[]}"#, r#"{"a":[]}"#);
    }
}

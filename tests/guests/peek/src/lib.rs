//! Looks at what it declared that it reads, and at what it did not.

use hookyard_plugin::prelude::*;

/// Nothing to configure.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Peek {}

impl Filter for Peek {
    fn filter(&self, event: &Event, _: &Context) -> Result<Decision> {
        Ok(Decision::accept_if(event.get("/open/wanted")? == Some(true), "not-wanted"))
    }
}

impl Transform for Peek {
    fn transform(&self, event: &Event, _: &Context) -> Result<Verdict> {
        let many = event.raw_many(&["/open/wanted".to_owned(), "/secret".to_owned()]);
        let seen = format!(
            "{:?} {:?} {} {} {:?} {:?}",
            event.raw("/open").map(|it| it.len()),
            event.raw("/openly"),
            event.raw("/secret").is_some(),
            event.bytes().len(),
            event.text(),
            many.iter().map(Option::is_some).collect::<Vec<_>>(),
        );
        Ok(Output::new().set("seen", seen).into())
    }
}

export!(Peek: filter + transform, reads: ["/open"]);

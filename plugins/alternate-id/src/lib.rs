//! Puts an alternate id of the profile in the place of its profile id: MyPreferences' `AlternateIdType`.

use hookyard_plugin::prelude::*;

/// Which alternate id, and where it goes. A profile that has none keeps its profile id.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AlternateId {
    /// The kind of alternate id, for example `LoyaltyNumber`.
    kind: String,
    #[schemars(
        description = "must be a JSON Pointer (RFC 6901): the place in the data for the alternate id. \
                       What is there is replaced",
        extend("format" = "json-pointer")
    )]
    put: String,
    /// JSON Pointers of all places where the profile id may stand, which are emptied.
    #[serde(default)]
    #[schemars(extend("items" = {
        "type": "string",
        "format": "json-pointer",
        "description": "must be a JSON Pointer (RFC 6901) into the data",
    }))]
    remove: Vec<String>,
    /// Write `{"Type": kind, "Id": value}` and not the value alone.
    #[serde(default)]
    typed: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Typed<'a> {
    r#type: &'a str,
    id: &'a str,
}

impl Transform for AlternateId {
    fn transform(&self, event: &Event, _: &Context) -> Result<Verdict> {
        let Some(id) = event.alternate_id(&self.kind) else { return Ok(Verdict::Pass) };

        // Other data have no place for an id.
        let media_type = event.attribute("datacontenttype");
        if event.size() == 0 || media_type.is_some_and(|it| !it.contains("json")) {
            return Ok(match event.attribute("subject") {
                Some(_) => Output::new().set("subject", id).into(),
                None => Verdict::Pass,
            });
        }
        let gone = self.remove.iter().filter(|it| **it != self.put);
        let mut output = gone.fold(Output::new(), |output, it| output.remove(it));
        output = if self.typed {
            output.put(&self.put, &Typed { r#type: &self.kind, id: &id })?
        } else {
            output.put(&self.put, &id)?
        };
        // The subject is the profile id as well.
        if event.attribute("subject").is_some() {
            output = output.set("subject", id);
        }
        Ok(output.into())
    }
}

export!(AlternateId: transform, reads: []);

#[cfg(test)]
mod tests {
    use hookyard_plugin::stand_in::Sample;

    use super::*;

    const EVENT: &str = r#"{"ProfileId":1024,"Data":[{"ProfileId":1024}]}"#;

    fn plugin(put: &str, typed: bool) -> AlternateId {
        AlternateId {
            kind: "Loyalty".to_owned(),
            put: put.to_owned(),
            remove: vec!["/ProfileId".to_owned(), "/Data/0/ProfileId".to_owned()],
            typed,
        }
    }

    fn check(plugin: &AlternateId, after: &str) {
        let sample = Sample::json(EVENT).alternate_id("Loyalty", "L-7");
        assert_eq!(sample.after(&sample.transform(plugin).unwrap()), after);
    }

    #[test]
    fn the_profile_id_goes_and_the_alternate_id_comes() {
        check(
            &plugin("/AlternateId", true),
            r#"{"AlternateId":{"Id":"L-7","Type":"Loyalty"},"Data":[{}]}"#,
        );
    }

    #[test]
    fn the_value_can_take_the_place_of_the_profile_id() {
        check(&plugin("/ProfileId", false), r#"{"Data":[{}],"ProfileId":"L-7"}"#);
    }

    #[test]
    fn a_profile_without_that_kind_keeps_its_profile_id() {
        let sample = Sample::json(EVENT).alternate_id("Other", "O-1");
        let verdict = sample.transform(&plugin("/AlternateId", true)).unwrap();
        assert_eq!(verdict, Verdict::Pass);
    }

    #[test]
    fn the_subject_does_not_give_the_profile_id_away() {
        let sample =
            Sample::json(EVENT).alternate_id("Loyalty", "L-7").attribute("subject", "1024");
        let Verdict::Replace(output) = sample.transform(&plugin("/AlternateId", true)).unwrap()
        else {
            panic!("the id is replaced");
        };
        assert_eq!(output.set, [("subject".to_owned(), "L-7".to_owned())]);
    }
}

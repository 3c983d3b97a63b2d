//! Puts an alternate id of the profile in the place of its profile id: MyPreferences' `AlternateIdType`.

mod members;

use hookyard_plugin::prelude::*;
use serde_json::value::RawValue;

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
    /// JSON Pointers of places where the profile id may stand, which are emptied.
    #[serde(default)]
    #[schemars(extend("items" = {
        "type": "string",
        "format": "json-pointer",
        "description": "must be a JSON Pointer (RFC 6901) into the data",
    }))]
    remove: Vec<String>,
    /// Names of members that the profile id may have: they go wherever they stand, however deep.
    #[serde(default)]
    everywhere: Vec<String>,
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

        let Some(data) = event.raw("") else {
            // Data that are not JSON, whatever they are called, have no place for an id.
            return Ok(match event.attribute("subject") {
                Some(_) => Output::new().set("subject", id).into(),
                None => Verdict::Pass,
            });
        };
        let mut output = Output::new();
        let data: &RawValue = serde_json::from_slice(&data)?;
        if let Some(left) = members::without(data, &self.everywhere)? {
            output = output.put("", &RawValue::from_string(left)?)?;
        }
        let gone = self.remove.iter().filter(|it| **it != self.put);
        output = gone.fold(output, |output, it| output.remove(it));
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

export!(AlternateId: transform);

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
            everywhere: Vec::new(),
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
    fn the_profile_id_goes_wherever_it_stands() {
        let data = r#"{"ProfileId":1024,"Data":[{"ProfileId":1024,"n":1.50},{"a":{"ProfileId":1}}],
                       "PreviousData":[[{"\u0050rofileId":1}]], "profileid": "ProfileId"}"#;
        let sample = Sample::json(data).alternate_id("Loyalty", "L-7");
        for (put, typed, after) in [
            (
                "/AlternateId",
                true,
                r#"{"AlternateId":{"Id":"L-7","Type":"Loyalty"},"Data":[{"n":1.50},{"a":{}}],"#,
            ),
            ("/ProfileId", false, r#"{"Data":[{"n":1.50},{"a":{}}],"#),
        ] {
            let it = AlternateId {
                remove: Vec::new(),
                everywhere: vec!["ProfileId".to_owned()],
                ..plugin(put, typed)
            };
            let found = sample.after(&sample.transform(&it).unwrap());
            assert!(found.starts_with(&after.replace("1.50", "1.5")), "{found}");
            assert!(found.contains(r#""PreviousData":[[{}]]"#), "{found}");
            assert!(found.contains(r#""profileid":"ProfileId""#), "{found}");
        }
    }

    #[test]
    fn what_the_data_are_counts_and_not_how_they_are_called() {
        for (media_type, data, after) in [
            ("application/JSON", r#"{"ProfileId":1}"#, r#"{"AlternateId":"L-7"}"#),
            ("text/plain", r#"{"ProfileId":1}"#, r#"{"AlternateId":"L-7"}"#),
            ("application/json", "no JSON", "no JSON"),
        ] {
            let sample = Sample::json(data)
                .attribute("datacontenttype", media_type)
                .attribute("subject", "1")
                .alternate_id("Loyalty", "L-7");
            let it = AlternateId {
                everywhere: vec!["ProfileId".to_owned()],
                ..plugin("/AlternateId", false)
            };
            let verdict = sample.transform(&it).unwrap();
            assert_eq!(sample.after(&verdict), after, "{media_type}");
            let Verdict::Replace(output) = verdict else { panic!("the id is replaced") };
            assert_eq!(output.set, [("subject".to_owned(), "L-7".to_owned())]);
        }
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

//! Delivers orders that are worth the trouble, without the note that is for us alone.

use hookyard_plugin::prelude::*;

/// Which orders are delivered.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AtLeast {
    /// The smallest amount that is delivered.
    minimum: f64,
}

impl Transform for AtLeast {
    fn transform(&self, event: &Event, _: &Context) -> Result<Verdict> {
        let Ok(Some(amount)) = event.get::<f64>("/amount") else {
            let detail = "the event's data have no number at `/amount`";
            return Err(Error::new("no-amount", detail));
        };
        if amount < self.minimum {
            return Ok(Verdict::drop("too-small"));
        }

        log(Level::Info, format_args!("an order of {amount}"));
        let mut output = Output::new().set("checkedby", "{{name}}");
        if event.raw("/internal_note").is_some() {
            output = output.remove("/internal_note");
        }
        Ok(output.into())
    }
}

export!(AtLeast: transform);

#[cfg(test)]
mod tests {
    use hookyard_plugin::stand_in::Sample;

    use super::*;

    fn run(data: &str) -> Result<Verdict> {
        Sample::json(data).transform(&AtLeast { minimum: 100.0 })
    }

    #[test]
    fn an_order_loses_its_note_and_nothing_else() {
        let data = r#"{"amount":250,"internal_note":"vip","lines":[1,2]}"#;
        let after = Sample::json(data).after(&run(data).unwrap());
        assert_eq!(after, r#"{"amount":250,"lines":[1,2]}"#);
    }

    #[test]
    fn the_minimum_is_enough() {
        let expected = Output::new().set("checkedby", "{{name}}");
        assert_eq!(run(r#"{"amount":100}"#).unwrap(), expected.into());
    }

    #[test]
    fn a_small_order_is_dropped() {
        let verdict = run(r#"{"amount":99.99}"#).unwrap();
        assert_eq!(verdict, Verdict::drop("too-small"));
    }

    #[test]
    fn an_order_without_a_number_fails() {
        for data in ["{}", r#"{"amount":"250"}"#, r#"{"amount":null}"#] {
            let err = run(data).unwrap_err();
            assert!(err.to_string().starts_with("no-amount: "), "{err}");
        }
    }
}

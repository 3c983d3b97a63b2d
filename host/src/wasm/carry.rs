//! What becomes of an event by a plugin's verdict: carried out within the budget of the run, which the host's
//! work is a part of. What an answer has many of is counted before anything is done with it.

use std::sync::Arc;

use bytes::Bytes;
use hookyard_nouns::delivery::Reason;
use hookyard_nouns::event::{
    ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX, Attributes, Content, Data, is_json_type,
};
use hookyard_nouns::json::Json;

use super::bindings::hookyard::plugin::types::{self, Decision, Edit, NewData, Output, Verdict};
use super::imports::SEARCHED_BYTES_MAX;
use super::run::Answer;
use super::stopwatch::Stopwatch;
use super::{Fault, Limits};

/// The most parts that an event can be split into, and how many times what one run may answer they can
/// be together.
const PARTS_MAX: usize = 64;
const PARTS_OUTPUTS_MAX: usize = 4;
/// To find one attribute among others is as much work as to go over so many bytes for each of them.
const ATTRIBUTE_WORK_BYTES: usize = 32;
/// How many edits there may be, of all parts together.
const EDITS_MAX: usize = 10_000;
/// How long a plugin's reason may be: what is longer is cut.
const DETAIL_BYTES_MAX: usize = 1 << 10;
/// The codes that only the router gives.
const OWN_CODES: &str = "plugin-";

/// What one step comes to.
pub(super) enum Done {
    Go(Vec<Arc<Content>>),
    Drop(Reason),
    Fail(Reason),
}

impl Done {
    /// # Errors
    ///
    /// The answer cannot be carried out, or not within the budget.
    pub(super) fn carry_out(
        content: &Arc<Content>,
        answer: Answer,
        limits: &Limits,
        clock: &mut Stopwatch,
    ) -> Result<Done, Fault> {
        let dropped = |it: Option<types::Reason>| {
            it.map_or(Ok(Reason::new("dropped", "a plugin dropped it")), reason)
        };
        Ok(match answer {
            Answer::Filter(Decision::Accept) | Answer::Transform(Verdict::Pass) => {
                Done::Go(vec![Arc::clone(content)])
            }
            Answer::Filter(Decision::Reject(it)) | Answer::Transform(Verdict::Drop(it)) => {
                Done::Drop(dropped(it)?)
            }
            Answer::Transform(Verdict::Fail(it)) => Done::Fail(reason(it)?),
            Answer::Transform(Verdict::Replace(output)) => {
                check_counts(content, std::slice::from_ref(&output))?;
                Done::Go(Work::new(limits, clock).outputs(content, [(None, output)])?)
            }
            Answer::Transform(Verdict::Split(outputs)) => {
                check_counts(content, &outputs)?;
                let parts = outputs.into_iter().enumerate().map(|(part, it)| (Some(part), it));
                Done::Go(Work::new(limits, clock).outputs(content, parts)?)
            }
        })
    }

    /// How many bytes of data it made that are not the ones of `before`.
    pub(super) fn bytes_beside(&self, before: &Arc<Content>) -> usize {
        let Done::Go(contents) = self else { return 0 };
        let changed = contents.iter().filter(|it| !Arc::ptr_eq(it, before));
        changed.map(|it| it.data_bytes()).sum()
    }
}

/// Parts of parts are bounded as well, and so are parts with the same data, which each deliver them.
pub(super) fn check_parts(parts: &[Arc<Content>], limits: &Limits) -> Result<(), Fault> {
    if parts.len() > PARTS_MAX {
        return Err(Fault::Verdict(format!("more than {PARTS_MAX} parts of one event")));
    }
    let bytes_max = PARTS_OUTPUTS_MAX * limits.output_bytes_max;
    let bytes: usize = parts.iter().map(|it| it.data_bytes()).sum();
    if parts.len() > 1 && bytes > bytes_max { Err(Fault::Output { bytes_max }) } else { Ok(()) }
}

/// The carrying out of one verdict.
struct Work<'a> {
    limits: &'a Limits,
    clock: &'a mut Stopwatch,
    /// What remains of the bytes that edits may go over.
    edited_bytes: usize,
}

impl Work<'_> {
    fn new<'a>(limits: &'a Limits, clock: &'a mut Stopwatch) -> Work<'a> {
        Work { limits, clock, edited_bytes: SEARCHED_BYTES_MAX }
    }

    /// Makes what a verdict says of an event, within what one run may answer.
    fn outputs(
        &mut self,
        content: &Content,
        outputs: impl IntoIterator<Item = (Option<usize>, Output)>,
    ) -> Result<Vec<Arc<Content>>, Fault> {
        let bytes_max = self.limits.output_bytes(content.data_bytes());
        let mut bytes = 0;
        let mut contents = Vec::new();
        for (part, output) in outputs {
            let same = matches!(output.data, NewData::Same);
            let new = self.changed(content, part, output)?;
            bytes += if same { 0 } else { new.data_bytes() };
            if bytes > bytes_max {
                return Err(Fault::Output { bytes_max });
            }
            contents.push(Arc::new(new));
        }
        Ok(contents)
    }

    fn changed(
        &mut self,
        content: &Content,
        part: Option<usize>,
        output: Output,
    ) -> Result<Content, Fault> {
        let mut attributes = content.attributes.clone();
        if let Some(part) = part {
            attributes.id = format!("{}.{}", attributes.id, part + 1);
        }
        let is_set = !output.set.is_empty();
        for name in &output.unset {
            self.look_through(&attributes)?;
            attributes.unset(name).map_err(|err| Fault::Verdict(err.to_string()))?;
        }
        for (name, value) in output.set {
            self.look_through(&attributes)?;
            attributes.set(&name, value).map_err(|err| Fault::Verdict(err.to_string()))?;
        }
        if is_set {
            check_attributes(&attributes)?;
        }
        let is_json = match &attributes.datacontenttype {
            Some(media_type) => is_json_type(media_type),
            // JSON is the default, and not for what came as bytes.
            None => !matches!(content.data, Some(Data::Binary(_))),
        };
        let data = match output.data {
            NewData::Same => content.data.clone(),
            NewData::Edits(edits) => self.edited(content, &edits)?,
            NewData::Text(text) if is_json => Some(self.parsed(text.into())?),
            NewData::Bytes(bytes) if is_json => Some(self.parsed(bytes.into())?),
            NewData::Text(text) => Some(Data::Text(text.into())),
            NewData::Bytes(bytes) => Some(Data::Binary(bytes.into())),
        };
        Ok(Content { attributes, data })
    }

    fn look_through(&mut self, attributes: &Attributes) -> Result<(), Fault> {
        self.clock.worked(ATTRIBUTE_WORK_BYTES * (1 + attributes.extensions.len()))
    }

    fn parsed(&mut self, bytes: Bytes) -> Result<Data, Fault> {
        self.clock.worked(bytes.len())?;
        Json::parse_data(bytes)
            .map(Data::Json)
            .map_err(|err| Fault::Verdict(format!("the new data are not JSON: {err}")))
    }

    fn edited(&mut self, content: &Content, edits: &[Edit]) -> Result<Option<Data>, Fault> {
        let Some(Data::Json(json)) = &content.data else {
            if edits.iter().all(|edit| edit.value.is_none()) {
                // There is nothing that could be removed.
                return Ok(content.data.clone());
            }
            return Err(Fault::Verdict("edits of data that are not JSON".to_owned()));
        };
        let before = json.bytes().len();
        // Each goes over what the ones before it have made.
        let longer = |size: usize, edit: &Edit| size + edit.value.as_ref().map_or(0, String::len);
        let mut size = before;
        for edit in edits {
            size = longer(size, edit);
            self.edited_bytes = self.edited_bytes.checked_sub(size).ok_or(Fault::Search)?;
        }
        let (mut size, mut late) = (before, Ok(()));
        let in_time = edits.iter().map_while(|edit| {
            size = longer(size, edit);
            late = self.clock.worked(size);
            late.is_ok().then_some((&*edit.pointer, edit.value.as_deref()))
        });
        let edited = json.edit(in_time);
        late?;
        Ok(Some(Data::Json(edited.map_err(|err| Fault::Verdict(err.to_string()))?)))
    }
}

/// Looks at how much there is, before anything is done with it.
fn check_counts(content: &Content, outputs: &[Output]) -> Result<(), Fault> {
    let wrong = |what: String| Err(Fault::Verdict(what));
    if outputs.is_empty() {
        return wrong("a split into nothing; say `drop`".to_owned());
    }
    if outputs.len() > PARTS_MAX {
        return wrong(format!("a split into {} parts; at most {PARTS_MAX}", outputs.len()));
    }
    let mut edits = 0;
    for output in outputs {
        for (what, count) in [("sets", output.set.len()), ("takes away", output.unset.len())] {
            if count > ATTRIBUTES_MAX {
                return wrong(format!("{what} {count} attributes; at most {ATTRIBUTES_MAX}"));
            }
        }
        let set_bytes: usize =
            output.set.iter().map(|(name, value)| name.len() + value.len()).sum();
        if set_bytes > ATTRIBUTES_BYTES_MAX {
            return wrong(format!(
                "sets attributes of {set_bytes} bytes; at most {ATTRIBUTES_BYTES_MAX}"
            ));
        }
        if !output.set.is_empty()
            && content.attributes.extensions.len() > ATTRIBUTES_MAX + output.unset.len()
        {
            // However few it sets, there would be too many.
            check_attributes(&content.attributes)?;
        }
        edits += if let NewData::Edits(edits) = &output.data { edits.len() } else { 0 };
    }
    if edits > EDITS_MAX {
        return wrong(format!("{edits} edits; at most {EDITS_MAX}"));
    }
    Ok(())
}

fn check_attributes(attributes: &Attributes) -> Result<(), Fault> {
    let (count, bytes) = attributes.size();
    if count > ATTRIBUTES_MAX || bytes > ATTRIBUTES_BYTES_MAX {
        let what = format!(
            "an event with {count} attributes of {bytes} bytes; at most {ATTRIBUTES_MAX} of \
             {ATTRIBUTES_BYTES_MAX}"
        );
        return Err(Fault::Verdict(what));
    }
    Ok(())
}

/// Codes of reasons are searched by, so they are short, and none that the router gives itself.
fn reason(it: types::Reason) -> Result<Reason, Fault> {
    let letter = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    if !(1..=64).contains(&it.code.len()) || !it.code.bytes().all(letter) {
        let what = "the code of a reason must be 1 to 64 of `a` to `z`, `0` to `9` and `-`";
        return Err(Fault::Verdict(what.to_owned()));
    }
    if it.code.starts_with(OWN_CODES) {
        let what = format!("codes of reasons that begin with `{OWN_CODES}` are the router's");
        return Err(Fault::Verdict(what));
    }
    let detail = it.detail.map(|mut text| {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
        text
    });
    Ok(Reason { code: it.code, detail })
}

//! What a plugin may ask of the host during a run: the event, piece by piece, and a line in the log.

use hookyard_nouns::event::Data;
use hookyard_nouns::json::Json;
use hookyard_nouns::plugin::{LogLevel, LogLine};

use super::Fault;
use super::bindings::hookyard::plugin::event::Host as EventHost;
use super::bindings::hookyard::plugin::log::{Host as LogHost, Level};
use super::bindings::hookyard::plugin::types;
use super::run::Run;

const LOG_LINES_MAX: usize = 20;
const LOG_BYTES_MAX: usize = 4 * 1024;
/// How many bytes of data a run may have searched for it, pointer by pointer.
pub(super) const SEARCHED_BYTES_MAX: usize = 32 << 20;
/// What it takes to look a pointer up in no data at all, and to compare it with one declared read: as much as
/// to search so many bytes.
const POINTER_BYTES: usize = 128;
const READ_BYTES: usize = 16;

impl Run {
    fn event_data(&self) -> Option<&Data> {
        self.event.as_ref()?.content.data.as_ref()
    }

    /// The data as a whole, where the manifest's declared reads do not keep them from the plugin.
    fn whole(&self) -> Option<&Data> {
        self.may_read("").then(|| self.event_data()).flatten()
    }

    fn may_read(&self, pointer: &str) -> bool {
        self.reads.as_deref().is_none_or(|reads| {
            reads.iter().any(|it| {
                pointer
                    .strip_prefix(&**it)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        })
    }

    /// Host functions are not interrupted by the clock, so that each look-up counts what it takes.
    fn find(&mut self, pointer: &str) -> Result<Option<Vec<u8>>, Fault> {
        let reads = self.reads.as_ref().map_or(0, |reads| reads.len());
        self.clock.worked(POINTER_BYTES + pointer.len() + READ_BYTES * reads)?;
        if !self.may_read(pointer) {
            return Ok(None);
        }
        let Some(Data::Json(json)) = self.event_data() else { return Ok(None) };
        let (json, size) = (json.clone(), json.bytes().len());
        let found = json.get(pointer);
        // What was found lies at the end of what was searched.
        let searched = found.as_ref().map_or(size, |it| offset(&json, it) + it.bytes().len());
        self.searched_bytes += searched;
        if self.searched_bytes > SEARCHED_BYTES_MAX {
            return Err(Fault::Search);
        }
        self.clock.worked(searched)?;
        Ok(found.map(|it| it.whole_text().into_owned().into_bytes()))
    }
}

fn offset(whole: &Json, part: &Json) -> usize {
    part.bytes().as_ptr().addr() - whole.bytes().as_ptr().addr()
}

impl types::Host for Run {}

impl EventHost for Run {
    fn all_attributes(&mut self) -> types::Attributes {
        match &self.event {
            Some(input) => {
                let it = input.content.attributes.clone();
                let extensions = it.extensions.into_iter();
                types::Attributes {
                    id: it.id,
                    source: it.source,
                    type_: it.event_type,
                    subject: it.subject,
                    time: it.time,
                    datacontenttype: it.datacontenttype,
                    dataschema: it.dataschema,
                    extensions: extensions.map(|(name, it)| (name, it.into_text())).collect(),
                }
            }
            None => types::Attributes {
                id: String::new(),
                source: String::new(),
                type_: String::new(),
                subject: None,
                time: None,
                datacontenttype: None,
                dataschema: None,
                extensions: Vec::new(),
            },
        }
    }

    fn attribute(&mut self, name: String) -> Option<String> {
        self.event.as_ref()?.content.attributes.get(&name).map(str::to_owned)
    }

    fn get(&mut self, pointer: String) -> wasmtime::Result<Option<Vec<u8>>> {
        if pointer.is_empty() {
            // Nothing is searched for that, so that only time bounds it, as it does `data`.
            let whole = match self.whole() {
                Some(Data::Json(json)) => Some(json.whole_text().into_owned().into_bytes()),
                _ => None,
            };
            self.clock.worked(whole.as_ref().map_or(0, Vec::len))?;
            return Ok(whole);
        }
        Ok(self.find(&pointer)?)
    }

    fn get_many(&mut self, pointers: Vec<String>) -> wasmtime::Result<Vec<Option<Vec<u8>>>> {
        Ok(pointers.iter().map(|pointer| self.find(pointer)).collect::<Result<_, Fault>>()?)
    }

    fn size(&mut self) -> u32 {
        let bytes = self.event_data().map_or(0, |data| data.bytes().len());
        u32::try_from(bytes).expect("a body is at most some megabytes")
    }

    fn data(&mut self) -> Vec<u8> {
        self.whole().map_or_else(Vec::new, |data| data.bytes().to_vec())
    }

    fn text(&mut self) -> Option<String> {
        match self.whole()? {
            Data::Json(json) => Some(json.whole_text().into_owned()),
            Data::Text(bytes) | Data::Binary(bytes) => String::from_utf8(bytes.to_vec()).ok(),
        }
    }

    fn alternate_id(&mut self, kind: String) -> Option<String> {
        let ids = &self.event.as_ref()?.event.alternate_ids;
        ids.iter().find(|(it, _)| *it == kind).map(|(_, id)| id.clone())
    }
}

impl LogHost for Run {
    fn log(&mut self, level: Level, mut message: String) {
        let room = LOG_BYTES_MAX - self.log_bytes;
        if self.log.len() == LOG_LINES_MAX || room == 0 {
            return;
        }
        message.truncate(message.floor_char_boundary(room));
        self.log_bytes += message.len();
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        self.log.push(LogLine { level, message });
    }
}

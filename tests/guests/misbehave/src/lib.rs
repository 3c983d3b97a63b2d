//! Does what its configuration says: everything that a verdict can be, and everything that can go wrong.

use hookyard_plugin::prelude::*;

/// What to do with an event.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Misbehave {
    r#do: Do,
    /// A JSON Pointer, a count or a text, for whatever asks for one.
    #[serde(default)]
    with: String,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Do {
    Pass,
    Drop,
    Fail,
    Error,
    Panic,
    Loop,
    Spin,
    Eat,
    /// As many parts as `with` says.
    Split,
    /// The data become `with`.
    Text,
    /// The data become as many bytes as `with` says.
    Flood,
    /// `with` is put at `/x` as it is, JSON or not.
    PutRaw,
    /// Sets the attribute `Bad Name`.
    BadAttribute,
    /// Takes the attribute `id` away.
    NoId,
    /// Reads the whole data as often as `with` says.
    Search,
    /// Logs a lot and passes.
    Chatter,
    /// Sets the attribute `seen` to what can be read at the pointer `with`, in total and of the context.
    Reveal,
}

impl Transform for Misbehave {
    fn transform(&self, event: &Event, context: &Context) -> Result<Verdict> {
        let count = || self.with.parse::<usize>().unwrap_or(0);
        Ok(match self.r#do {
            Do::Pass => Verdict::Pass,
            Do::Drop => Verdict::drop(&self.with),
            Do::Fail => return Err(Error::new("cannot", &self.with)),
            Do::Error => event.get::<u64>(&self.with).map(|_| Verdict::Pass)?,
            Do::Panic => panic!("on purpose: {}", self.with),
            Do::Loop => loop {
                std::hint::black_box(());
            },
            Do::Spin => {
                let mut sum = 0_u64;
                for number in 0..count() as u64 {
                    sum = std::hint::black_box(sum.wrapping_add(number));
                }
                Verdict::Pass
            }
            Do::Eat => {
                let mut all = Vec::new();
                loop {
                    // Asked for and not touched: to be out of memory before being out of time.
                    all.push(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
                }
            }
            Do::Split => Verdict::Split(
                (0..count())
                    .map(|part| Output::new().put("/part", &part))
                    .collect::<Result<_>>()?,
            ),
            Do::Text => Output::new().text(&*self.with).into(),
            Do::Flood => Output::new().json(&"x".repeat(count()))?.into(),
            Do::PutRaw => Output {
                data: hookyard_plugin::NewData::Edits(vec![hookyard_plugin::Edit {
                    pointer: "/x".to_owned(),
                    value: Some(self.with.clone()),
                }]),
                ..Output::new()
            }
            .into(),
            Do::BadAttribute => Output::new().set("Bad Name", "x").into(),
            Do::NoId => Output::new().unset("id").into(),
            Do::Search => {
                let pointers = vec!["/nowhere".to_owned(); count()];
                event.raw_many(&pointers);
                Verdict::Pass
            }
            Do::Chatter => {
                for line in 0..1_000 {
                    log(Level::Info, "x".repeat(100 + line));
                }
                Verdict::Pass
            }
            Do::Reveal => {
                let read = event.raw(&self.with).unwrap_or_default();
                let seen = format!(
                    "{} {} {} {}",
                    String::from_utf8_lossy(&read),
                    event.size(),
                    context.format,
                    context.subscription
                );
                Output::new().set("seen", seen).into()
            }
        })
    }
}

export!(Misbehave: transform);

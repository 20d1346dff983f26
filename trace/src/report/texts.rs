//! Every sentence of a report, in English and Spanish. `{name}` is filled in; names from files stand between backticks.

use super::data::Finding;
use std::borrow::Cow;

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lang {
    /// English.
    En,
    /// Spanish.
    Es,
}

impl Lang {
    /// Its code, as HTML writes it.
    pub fn code(self) -> &'static str {
        match self {
            Lang::En => "en",
            Lang::Es => "es",
        }
    }
}

/// Which languages a report is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Languages {
    /// English.
    #[default]
    En,
    /// Spanish.
    Es,
    /// Both: Spanish first, as the reports that greta began with have it.
    Both,
}

impl Languages {
    /// The languages, in the order of the report.
    pub fn list(self) -> &'static [Lang] {
        match self {
            Languages::En => &[Lang::En],
            Languages::Es => &[Lang::Es],
            Languages::Both => &[Lang::Es, Lang::En],
        }
    }
}

impl std::str::FromStr for Languages {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "en" => Ok(Languages::En),
            "es" => Ok(Languages::Es),
            "both" => Ok(Languages::Both),
            _ => Err(format!("unknown language `{s}`; known: en, es, both")),
        }
    }
}

/// A text: key, English, Spanish.
pub type Text = (&'static str, &'static str, &'static str);

/// Every text.
pub fn all() -> impl Iterator<Item = &'static Text> {
    super::words::HEADINGS.iter().chain(super::words::PAGE).chain(super::sentences::SENTENCES)
}

/// The text of a key; the key itself if there is none, which a test rules out.
pub fn text(key: &'static str, lang: Lang) -> &'static str {
    match all().find(|t| t.0 == key) {
        Some(t) if lang == Lang::Es => t.2,
        Some(t) => t.1,
        None => key,
    }
}

/// Puts values into a text's places. `get` is told whether a place stands in a code span.
pub fn fill<'t>(text: &'t str, get: impl Fn(&str, bool) -> Option<String>) -> Cow<'t, str> {
    if !text.contains('{') {
        return text.into();
    }
    let (mut out, mut rest, mut code) = (String::new(), text, false);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        code ^= before.matches('`').count() % 2 == 1;
        let Some((name, tail)) = after.split_once('}') else { break };
        out.push_str(&get(name, code).unwrap_or_default());
        rest = tail;
    }
    out.push_str(rest);
    out.into()
}

/// Names in a text's places.
pub fn places(text: &str) -> Vec<&str> {
    text.split('{').skip(1).filter_map(|p| p.split_once('}')).map(|p| p.0).collect()
}

impl Finding {
    /// The sentence: plain text with Markdown's code spans and bold, and no other markup.
    pub fn sentence(&self, lang: Lang) -> String {
        self.filled(lang, |text| text.into())
    }

    /// The sentence as Markdown.
    pub fn markdown(&self, lang: Lang) -> String {
        self.filled(lang, super::format::prose)
    }

    /// What comes from files can't end a code span or a line; outside of one, `plain` makes it text.
    fn filled(&self, lang: Lang, plain: impl Fn(&str) -> String) -> String {
        let get = |name: &str, code: bool| {
            let value = self.args.get(name)?.replace(['\n', '\r'], " ");
            if !code {
                return Some(plain(&value));
            }
            // A list of names brings its own backticks, between its items alone.
            let parts = value.split("`, `").map(|p| p.replace('`', "'"));
            Some(parts.collect::<Vec<_>>().join("`, `"))
        };
        fill(text(self.key, lang), get).into_owned()
    }
}

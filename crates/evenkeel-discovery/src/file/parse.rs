//! Parses the text of an endpoint file into endpoints, with the position of each error.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    marker::PhantomData,
    path::Path,
};

use evenkeel_core::endpoint::{Address, Endpoint};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

/// The largest endpoint file that is read: 8 MiB, which is room for about 100,000 endpoints.
pub const MAX_FILE_SIZE: usize = 8 << 20;

/// The format of an endpoint file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A list of objects, or an object with one under the key `endpoints`.
    #[cfg(feature = "json")]
    Json,
    /// A list of mappings, or a mapping with one under the key `endpoints`.
    #[cfg(feature = "yaml")]
    Yaml,
    /// Tables `[[endpoints]]`.
    #[cfg(feature = "toml")]
    Toml,
}

impl Format {
    /// The format that the extension of a file name stands for.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            #[cfg(feature = "json")]
            "json" => Some(Self::Json),
            #[cfg(feature = "yaml")]
            "yaml" | "yml" => Some(Self::Yaml),
            #[cfg(feature = "toml")]
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

/// A position in a text, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

#[cfg(any(feature = "json", feature = "toml"))]
impl Position {
    /// The position of the byte at `offset`, or the last one if the text is shorter.
    fn at(text: &str, offset: usize) -> Self {
        let before = text.char_indices().take_while(|(at, _)| *at < offset);
        before.fold(Self { line: 1, column: 1 }, |place, (_, c)| match c {
            '\n' => Self { line: place.line + 1, column: 1 },
            _ => Self { column: place.column + 1, ..place },
        })
    }
}

/// What is wrong with an endpoint file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileError {
    /// Where it is wrong, as far as that is known.
    pub position: Option<Position>,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl FileError {
    pub(super) fn new(position: Option<Position>, reason: impl Into<String>) -> Self {
        Self { position, reason: reason.into() }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "{position}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for FileError {}

/// Reads the text of an endpoint file.
///
/// ```
/// use evenkeel::discovery::file::{Format, parse};
///
/// let endpoints = parse(r#"[{"address": "10.0.0.1:80", "zone": "eu-1a"}]"#, Format::Json)?;
/// assert_eq!(endpoints[0].zone.as_deref(), Some("eu-1a"));
///
/// let error = parse("[\n {\"address\": \"10.0.0.1\"}]", Format::Json).unwrap_err();
/// assert!(error.to_string().starts_with("line 2, column"));
/// # Ok::<(), evenkeel::discovery::file::FileError>(())
/// ```
///
/// # Errors
/// If the text is longer than [`MAX_FILE_SIZE`], empty, not well-formed, has unknown keys, or names
/// an address twice.
pub fn parse(text: &str, format: Format) -> Result<Vec<Endpoint>, FileError> {
    if MAX_FILE_SIZE < text.len() {
        let reason = format!("the file is longer than {MAX_FILE_SIZE} bytes; split the list");
        return Err(FileError::new(None, reason));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        let reason = "the file is empty; write an empty list, `endpoints = []` in TOML and `[]` \
                      elsewhere, if there are no endpoints";
        return Err(FileError::new(None, reason));
    }
    let entries = match format {
        #[cfg(feature = "json")]
        Format::Json => json(text),
        #[cfg(feature = "yaml")]
        Format::Yaml => yaml(text),
        #[cfg(feature = "toml")]
        Format::Toml => toml(text),
    }?;
    let mut seen = HashMap::new();
    for Entry { endpoint, position } in &entries {
        if let Some(earlier) = seen.insert(&endpoint.address, position) {
            let reason = format!(
                "{} is listed already at {earlier}; remove one of the two",
                endpoint.address
            );
            return Err(FileError::new(Some(*position), reason));
        }
    }
    Ok(entries.into_iter().map(|entry| entry.endpoint).collect())
}

struct Entry {
    endpoint: Endpoint,
    position: Position,
}

#[cfg(feature = "json")]
fn json(text: &str) -> Result<Vec<Entry>, FileError> {
    use serde_json::value::RawValue;

    // serde_json does not give the positions of values, but a raw value is a slice of the text.
    let List::<&RawValue>(raw) =
        serde_json::from_str(text).map_err(|error| json_error(&error, Position::at(text, 0)))?;
    let mut places = Places::new(text);
    let entries = raw.into_iter().map(|raw| {
        let offset = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        let position = places.position(offset);
        let record: Record =
            serde_json::from_str(raw.get()).map_err(|error| json_error(&error, position))?;
        Ok(Entry { endpoint: record.into(), position })
    });
    entries.collect()
}

/// The error for the part of the text that begins at `start`.
#[cfg(feature = "json")]
fn json_error(error: &serde_json::Error, start: Position) -> FileError {
    let column_start = if error.line() == 1 { start.column - 1 } else { 0 };
    let position = Position {
        line: start.line + error.line().max(1) - 1,
        column: column_start + error.column().max(1),
    };
    let text = error.to_string();
    FileError::new(Some(position), without_place(&text))
}

/// The text of an error without the position at its end, since ours stands at its beginning.
#[cfg(any(feature = "json", feature = "yaml"))]
fn without_place(text: &str) -> &str {
    text.rsplit_once(" at line ").map_or(text, |(reason, _)| reason)
}

#[cfg(feature = "yaml")]
fn yaml(text: &str) -> Result<Vec<Entry>, FileError> {
    let place = |location: serde_saphyr::Location| Position {
        line: usize::try_from(location.line()).unwrap_or(usize::MAX),
        column: usize::try_from(location.column()).unwrap_or(usize::MAX),
    };
    let List::<serde_saphyr::Spanned<Record>>(records) =
        serde_saphyr::from_str(text).map_err(|error| {
            let position = error.location().map(place);
            FileError::new(position, one_line(without_place(&error.without_snippet().to_string())))
        })?;
    let entries = records
        .into_iter()
        .map(|record| Entry { position: place(record.referenced), endpoint: record.value.into() });
    Ok(entries.collect())
}

#[cfg(feature = "toml")]
fn toml(text: &str) -> Result<Vec<Entry>, FileError> {
    let List::<toml::Spanned<Record>>(records) = toml::from_str(text).map_err(|error| {
        let position = error.span().map(|span| Position::at(text, span.start));
        FileError::new(position, one_line(error.message()))
    })?;
    let mut places = Places::new(text);
    let entries = records.into_iter().map(|record| Entry {
        position: places.position(record.span().start),
        endpoint: record.into_inner().into(),
    });
    Ok(entries.collect())
}

/// A reason becomes part of a line in a log.
#[cfg(any(feature = "yaml", feature = "toml"))]
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Finds positions in one walk over the text; they have to be asked for in ascending order.
#[cfg(any(feature = "json", feature = "toml"))]
struct Places<'a> {
    text: &'a str,
    offset: usize,
    position: Position,
}

#[cfg(any(feature = "json", feature = "toml"))]
impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, offset: 0, position: Position { line: 1, column: 1 } }
    }

    fn position(&mut self, offset: usize) -> Position {
        let passed = self.text.get(self.offset..offset).unwrap_or_default();
        let place = Position::at(passed, passed.len());
        if 1 < place.line {
            self.position.column = 0;
        }
        self.position.line += place.line - 1;
        self.position.column += place.column - usize::from(place.line == 1);
        self.offset = offset.max(self.offset);
        self.position
    }
}

/// One endpoint as a file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an endpoint such as {address: 10.0.0.1:80, weight: 1}")]
struct Record {
    #[serde(deserialize_with = "address")]
    address: Address,
    #[serde(default = "weight_default")]
    weight: u32,
    zone: Option<String>,
    #[serde(default)]
    priority: u32,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

fn weight_default() -> u32 {
    1
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

impl From<Record> for Endpoint {
    fn from(record: Record) -> Self {
        let mut endpoint =
            Self::new(record.address).weight(record.weight).priority(record.priority);
        endpoint.zone = record.zone.map(Into::into);
        endpoint.metadata = record.metadata.into();
        endpoint
    }
}

/// A list, at the top level or under the key `endpoints`.
struct List<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of endpoints, as it is or under the key `endpoints`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = vec![];
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(List(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "endpoints" {
                return Err(de::Error::unknown_field(&key, &["endpoints"]));
            }
            if entries.replace(map.next_value::<Vec<T>>()?).is_some() {
                return Err(de::Error::duplicate_field("endpoints"));
            }
        }
        entries.map(List).ok_or_else(|| de::Error::missing_field("endpoints"))
    }
}

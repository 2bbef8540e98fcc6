//! How `consume` writes records: by a format for people and pipes, or as JSON.

use highwater_client::ConsumedRecord;
use serde_json::{Map, Value, json};

/// What `%` and `\` mean in a format; shown by `--help`.
pub(crate) const HELP: &str = "\
Formats (each record ends its line):
  %k key  %v value  %o offset  %p partition  %t timestamp, ms since 1970  %T topic
  %h headers, as name=value,..  %% a percent sign
  \\n \\r \\t \\0 \\\\ \\xHH as in C";

/// A format, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Key,
    Value,
    Offset,
    Partition,
    Timestamp,
    Topic,
    Headers,
}

impl Format {
    /// Reads a format.
    ///
    /// # Errors
    /// What is not known in it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '%' => match conversion(chars.next())? {
                    Some(part) => {
                        if !literal.is_empty() {
                            parts.push(Part::Text(std::mem::take(&mut literal)));
                        }
                        parts.push(part);
                    }
                    None => literal.push(b'%'),
                },
                '\\' => literal.push(escape(&mut chars)?),
                other => literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        literal.push(b'\n');
        parts.push(Part::Text(literal));
        Ok(Self { parts })
    }

    /// Writes a record behind what is in `line`.
    pub(crate) fn write(&self, record: &ConsumedRecord, line: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => line.extend_from_slice(text),
                Part::Key => line.extend_from_slice(record.key.as_deref().unwrap_or_default()),
                Part::Value => line.extend_from_slice(record.value.as_deref().unwrap_or_default()),
                Part::Offset => put(line, record.offset),
                Part::Partition => put(line, record.partition.partition),
                Part::Timestamp => put(line, record.timestamp_ms),
                Part::Topic => put(line, &record.partition.topic),
                Part::Headers => write_headers(record, line),
            }
        }
    }
}

fn put(line: &mut Vec<u8>, value: impl ToString) {
    line.extend_from_slice(value.to_string().as_bytes());
}

fn write_headers(record: &ConsumedRecord, line: &mut Vec<u8>) {
    for (number, (name, value)) in record.headers.iter().enumerate() {
        if number > 0 {
            line.push(b',');
        }
        line.extend_from_slice(name);
        if let Some(value) = value {
            line.push(b'=');
            line.extend_from_slice(value);
        }
    }
}

/// What a letter behind `%` stands for; nothing is a percent sign.
fn conversion(letter: Option<char>) -> Result<Option<Part>, String> {
    Ok(Some(match letter {
        Some('k') => Part::Key,
        Some('v') => Part::Value,
        Some('o') => Part::Offset,
        Some('p') => Part::Partition,
        Some('t') => Part::Timestamp,
        Some('T') => Part::Topic,
        Some('h') => Part::Headers,
        Some('%') => return Ok(None),
        Some(other) => {
            return Err(format!(
                "unknown %{other}; known are %k %v %o %p %t %T %h %%"
            ));
        }
        None => return Err("ends with %; write %% for a percent sign".to_owned()),
    }))
}

/// What follows a backslash.
///
/// # Errors
/// When it is nothing known.
fn escape(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match chars.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let is_hex = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let byte = u8::from_str_radix(&digits, 16).ok();
            byte.filter(|_| is_hex)
                .ok_or_else(|| format!("\\x{digits} is no byte; write two hex digits"))
        }
        Some(other) => Err(format!(
            "unknown \\{other}; known are \\n \\r \\t \\0 \\\\ \\xHH"
        )),
        None => Err("ends with \\; write \\\\ for a backslash".to_owned()),
    }
}

/// Text with the escapes of formats in it, for separators.
///
/// # Errors
/// What is not known in it, or that it is empty or no UTF-8.
pub(crate) fn unescape(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => bytes.push(escape(&mut chars)?),
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if bytes.is_empty() {
        return Err("must not be empty".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is no UTF-8".to_owned())
}

/// A record as a JSON object. What is no UTF-8 is given in hex, under a name that says so.
pub(crate) fn json_of(record: &ConsumedRecord) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("topic", json!(record.partition.topic.as_str()));
    put("partition", json!(record.partition.partition));
    put("offset", json!(record.offset.0));
    put("timestamp", json!(record.timestamp_ms));
    put_bytes(&mut object, "key", record.key.as_deref());
    put_bytes(&mut object, "value", record.value.as_deref());
    if !record.headers.is_empty() {
        let headers = record.headers.iter().map(|(name, value)| {
            let mut header = Map::new();
            put_bytes(&mut header, "name", Some(name));
            put_bytes(&mut header, "value", value.as_deref());
            Value::Object(header)
        });
        object.insert("headers".to_owned(), headers.collect());
    }
    Value::Object(object)
}

fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    let (name, value) = match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (name.to_owned(), Value::Null),
        Some((_, Ok(text))) => (name.to_owned(), text.into()),
        Some((bytes, Err(_))) => (format!("{name}_hex"), hex(bytes).into()),
    };
    object.insert(name, value);
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use highwater_client::{Offset, TopicName, TopicPartition};

    use super::*;

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            partition: TopicPartition {
                topic: TopicName::new("flights").unwrap(),
                partition: 3,
            },
            offset: Offset(42),
            timestamp_ms: 1_357_034_400_000,
            key: Some("UA".into()),
            value: Some("UA,1545".into()),
            headers: vec![
                ("a".into(), Some("1".into())),
                ("b".into(), None),
                ("a".into(), Some("2".into())),
            ],
        }
    }

    #[track_caller]
    fn check(format: &str, expected: &str) {
        let mut line = Vec::new();
        Format::parse(format).unwrap().write(&record(), &mut line);
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn each_letter_has_its_meaning() {
        check("%k\\t%v", "UA\tUA,1545\n");
        check("%k\t%v", "UA\tUA,1545\n");
        check("%T-%p@%o %t", "flights-3@42 1357034400000\n");
        check("%h", "a=1,b,a=2\n");
        check("100%% \\x41\\\\ \u{e9}", "100% A\\ \u{e9}\n");
        check("", "\n");
    }

    #[test]
    fn null_is_written_as_nothing() {
        let mut record = record();
        (record.key, record.value) = (None, None);
        let mut line = Vec::new();
        Format::parse("[%k|%v]").unwrap().write(&record, &mut line);
        assert_eq!(line, b"[|]\n");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in ["%", "%q", "\\", "\\q", "\\x4", "\\xzz", "\\x+1"] {
            assert!(Format::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn separators_may_be_written_with_escapes() {
        assert_eq!(unescape("\\t"), Ok("\t".to_owned()));
        assert_eq!(unescape(" -> "), Ok(" -> ".to_owned()));
        assert!(unescape("").is_err());
        assert!(unescape("\\xff").is_err());
    }

    #[test]
    fn json_tells_null_text_and_bytes_apart() {
        let mut record = record();
        record.value = Some(vec![0xff, 0x00].into());
        record.headers.clear();
        assert_eq!(
            json_of(&record),
            json!({
                "topic": "flights", "partition": 3, "offset": 42,
                "timestamp": 1_357_034_400_000_i64, "key": "UA", "value_hex": "ff00",
            })
        );
        record.value = None;
        assert_eq!(json_of(&record)["value"], Value::Null);
    }
}

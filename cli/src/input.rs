//! What `produce` reads: lines, or rows of a CSV file, and the keys in them.

use std::borrow::Cow;
use std::io::{self, BufRead};

/// The longest line that is read, in bytes. Far above what a cluster takes as one record, so
/// that the cluster's limit speaks first; low enough for a file without line ends.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Where a record's key is in its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyIn {
    /// Records have no key.
    Nothing,
    /// Before the first separator; the value is what lies behind it.
    Separator(String),
    /// In this column of a CSV file with a header line. The value is the whole line.
    Column(Column),
}

/// A column of a CSV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Column {
    /// By what the header calls it.
    Name(String),
    /// By its place, from 0.
    Index(usize),
}

impl Column {
    /// A number is a place, everything else a name.
    pub(crate) fn parse(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Name(text.to_owned()), Self::Index)
    }
}

/// A record to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The line it begins at, from 1.
    pub(crate) line: u64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
}

/// Why the input cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("line {line}: {source}")]
    Read { line: u64, source: io::Error },
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes; records are lines")]
    TooLong { line: u64 },
    #[error("line {line} has no separator {separator:?}; --key-separator says what follows a key")]
    NoSeparator { line: u64, separator: String },
    #[error("line {line} has no column {column}; --csv-key says which holds the key")]
    NoColumn { line: u64, column: usize },
    #[error("the header has no column {name:?}; it has {}", columns.join(", "))]
    NoSuchColumn { name: String, columns: Vec<String> },
    #[error("there is no header line")]
    NoHeader,
}

/// Rows of a text, one after the other.
#[derive(Debug)]
pub(crate) struct Rows<R> {
    reader: R,
    keys: Keys,
    /// The number of the line last read.
    line: u64,
}

/// As [`KeyIn`], with the header read.
#[derive(Debug)]
enum Keys {
    Nothing,
    Separator(String),
    Column(usize),
}

impl<R: BufRead> Rows<R> {
    /// Reads the header of a CSV file, nothing else.
    ///
    /// # Errors
    /// When there is no header, or not the column in it.
    pub(crate) fn new(reader: R, keys: &KeyIn) -> Result<Self, InputError> {
        let mut rows = Self {
            reader,
            keys: Keys::Nothing,
            line: 0,
        };
        rows.keys = match keys {
            KeyIn::Nothing => Keys::Nothing,
            KeyIn::Separator(separator) => Keys::Separator(separator.clone()),
            KeyIn::Column(column) => Keys::Column(rows.header(column)?),
        };
        Ok(rows)
    }

    /// What is read from.
    pub(crate) fn reader(&self) -> &R {
        &self.reader
    }

    /// The next row; nothing at the end.
    ///
    /// # Errors
    /// When the input cannot be read, or has no key where one should be.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, InputError> {
        let mut value = Vec::new();
        let is_csv = matches!(self.keys, Keys::Column(_));
        let line = loop {
            let line = self.line + 1;
            if !self.read_line(&mut value, is_csv)? {
                return Ok(None);
            }
            // Blank lines are no rows of a table; as lines they are empty records.
            if !is_csv || !value.is_empty() {
                break line;
            }
        };
        let (key, value) = self.keys.split(line, value)?;
        Ok(Some(Row { line, key, value }))
    }

    fn header(&mut self, column: &Column) -> Result<usize, InputError> {
        let mut header = Vec::new();
        if !self.read_line(&mut header, true)? {
            return Err(InputError::NoHeader);
        }
        let header = header.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&header);
        let columns: Vec<String> = fields(header)
            .map(|field| String::from_utf8_lossy(&field).into_owned())
            .collect();
        let found = match column {
            Column::Index(index) => Some(*index).filter(|index| *index < columns.len()),
            Column::Name(name) => columns.iter().position(|column| column == name),
        };
        found.ok_or_else(|| InputError::NoSuchColumn {
            name: match column {
                Column::Index(index) => index.to_string(),
                Column::Name(name) => name.clone(),
            },
            columns,
        })
    }

    /// Reads a line without its end; a row of a table goes on while a quote is open. Gives
    /// whether there was one.
    fn read_line(&mut self, into: &mut Vec<u8>, is_csv: bool) -> Result<bool, InputError> {
        into.clear();
        let line = self.line + 1;
        let mut is_open = false;
        loop {
            let start = into.len();
            let room = LINE_BYTES_MAX.saturating_sub(start) + 1;
            let mut limited = io::Read::take(&mut self.reader, u64_of(room));
            let read = limited.read_until(b'\n', into);
            let count = read.map_err(|source| InputError::Read { line, source })?;
            if into.len() > LINE_BYTES_MAX {
                return Err(InputError::TooLong { line });
            }
            if count == 0 && start == 0 {
                return Ok(false);
            }
            self.line += u64::from(count > 0);
            let quotes = into[start..].iter().filter(|&&byte| byte == b'"');
            is_open ^= quotes.count() % 2 == 1;
            if count == 0 || !is_csv || !is_open {
                break;
            }
        }
        into.pop_if(|last| *last == b'\n');
        if is_csv {
            into.pop_if(|last| *last == b'\r');
        }
        Ok(true)
    }
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits into 64 bits")
}

type KeyAndValue = (Option<Vec<u8>>, Vec<u8>);

impl Keys {
    fn split(&self, line: u64, row: Vec<u8>) -> Result<KeyAndValue, InputError> {
        match self {
            Self::Nothing => Ok((None, row)),
            Self::Separator(separator) => {
                let at = find(&row, separator.as_bytes());
                let at = at.ok_or_else(|| InputError::NoSeparator {
                    line,
                    separator: separator.clone(),
                })?;
                let value = row[at + separator.len()..].to_vec();
                let mut key = row;
                key.truncate(at);
                Ok((Some(key), value))
            }
            &Self::Column(column) => {
                let key = fields(&row).nth(column).map(Cow::into_owned);
                let key = key.ok_or(InputError::NoColumn { line, column })?;
                Ok((Some(key), row))
            }
        }
    }
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len())
        .position(|window| window == pattern)
}

/// The fields of a row of a table, as RFC 4180 writes them: separated by commas, quoted where
/// they hold commas, quotes (doubled) or line ends.
fn fields(row: &[u8]) -> Fields<'_> {
    Fields { rest: Some(row) }
}

struct Fields<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Cow<'a, [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            return Some(Cow::Owned(self.quoted(quoted)));
        }
        let end = rest.iter().position(|&byte| byte == b',');
        self.rest = end.map(|end| &rest[end + 1..]);
        Some(Cow::Borrowed(&rest[..end.unwrap_or(rest.len())]))
    }
}

impl<'a> Fields<'a> {
    /// A field whose opening quote was read. What follows the closing one belongs to it too, as
    /// most readers have it.
    fn quoted(&mut self, mut rest: &'a [u8]) -> Vec<u8> {
        let mut field = Vec::new();
        let mut is_open = true;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            match byte {
                b'"' if is_open && rest.first() == Some(&b'"') => {
                    field.push(b'"');
                    rest = &rest[1..];
                }
                b'"' if is_open => is_open = false,
                b',' if !is_open => {
                    self.rest = Some(rest);
                    return field;
                }
                _ => field.push(byte),
            }
        }
        self.rest = None;
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, keys: &KeyIn) -> Result<Vec<(u64, Option<String>, String)>, InputError> {
        let mut rows = Rows::new(text.as_bytes(), keys)?;
        let mut found = Vec::new();
        let string = |bytes| String::from_utf8(bytes).unwrap();
        while let Some(row) = rows.next_row()? {
            found.push((row.line, row.key.map(string), string(row.value)));
        }
        Ok(found)
    }

    #[track_caller]
    fn check(text: &str, keys: &KeyIn, expected: &[(u64, Option<&str>, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|&(line, key, value)| (line, key.map(str::to_owned), value.to_owned()))
            .collect();
        assert_eq!(read(text, keys).unwrap(), expected);
    }

    fn column(name: &str) -> KeyIn {
        KeyIn::Column(Column::parse(name))
    }

    #[test]
    fn lines_are_records_with_or_without_a_last_line_end() {
        let nothing = KeyIn::Nothing;
        check("a\nb\n", &nothing, &[(1, None, "a"), (2, None, "b")]);
        check(
            "a\n\nb",
            &nothing,
            &[(1, None, "a"), (2, None, ""), (3, None, "b")],
        );
        check("a\r\n", &nothing, &[(1, None, "a\r")]);
        check("", &nothing, &[]);
    }

    #[test]
    fn a_key_ends_at_the_first_separator() {
        let tab = KeyIn::Separator("\t".to_owned());
        check("k\tv\tw\n", &tab, &[(1, Some("k"), "v\tw")]);
        check("\tv\n", &tab, &[(1, Some(""), "v")]);
        let arrow = KeyIn::Separator("->".to_owned());
        check("k-->v\n", &arrow, &[(1, Some("k-"), "v")]);
        let error = read("k\tv\nv\n", &tab).unwrap_err();
        assert!(matches!(error, InputError::NoSeparator { line: 2, .. }));
    }

    #[test]
    fn a_column_is_named_or_numbered_and_the_header_is_no_record() {
        let text = "year,carrier\n2013,UA\n\n2014,\"A,A\"\n";
        let rows = [(2, Some("UA"), "2013,UA"), (4, Some("A,A"), "2014,\"A,A\"")];
        check(text, &column("carrier"), &rows);
        check(text, &column("1"), &rows);
        check(
            "\u{feff}a,b\r\n1,2\r\n",
            &column("a"),
            &[(2, Some("1"), "1,2")],
        );
    }

    #[test]
    fn a_row_goes_on_while_a_quote_is_open() {
        let text = "a,b\n\"x\ny\",\"say \"\"z\"\"\"\n1,2\n";
        let rows = [
            (2, Some("say \"z\""), "\"x\ny\",\"say \"\"z\"\"\""),
            (4, Some("2"), "1,2"),
        ];
        check(text, &column("b"), &rows);
    }

    #[test]
    fn what_has_no_key_says_where() {
        let error = read("a,b\n1,2\n3\n", &column("b")).unwrap_err();
        assert!(matches!(error, InputError::NoColumn { line: 3, column: 1 }));
        let error = read("a,b\n1,2\n", &column("c")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the header has no column \"c\"; it has a, b"
        );
        assert!(read("a,b\n1,2\n", &column("2")).is_err());
        assert!(matches!(read("", &column("a")), Err(InputError::NoHeader)));
    }

    #[test]
    fn fields_are_split_as_others_split_them() {
        for row in [
            "",
            ",",
            "a",
            "a,b",
            "\"a\",b",
            "\"a\"\"b\",c",
            "\"\",\"\"",
            "a\"b,c",
            "\"a\"b,c",
            "a,",
        ] {
            let mut reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .from_reader(row.as_bytes());
            let theirs = reader.byte_records().next().transpose().unwrap();
            let ours: Vec<_> = fields(row.as_bytes()).collect();
            match theirs {
                Some(theirs) => assert_eq!(ours, theirs.iter().collect::<Vec<_>>(), "{row}"),
                None => assert_eq!(ours, [&b""[..]], "{row}"),
            }
        }
    }
    #[test]
    fn the_fuzzers_corpus_is_read() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/csv_rows");
        let mut inputs = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            let text = std::fs::read(file.unwrap().path()).unwrap();
            (0..=text.len()).for_each(|end| crate::csv_rows::check(&text[..end]));
            inputs += 1;
        }
        assert!(inputs > 0);
    }
}

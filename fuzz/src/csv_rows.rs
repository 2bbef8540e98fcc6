//! What must hold of the reader of lines and rows, whatever the text is.
//!
//! libFuzzer's target and the unit tests of `highwater produce` both include it.

use crate::input::{Column, InputError, KeyIn, Rows};

/// The first byte says where the keys are.
pub(crate) fn check(data: &[u8]) {
    let Some((&keys, text)) = data.split_first() else {
        return;
    };
    let keys = match keys % 4 {
        0 => KeyIn::Nothing,
        1 => KeyIn::Separator(char::from(keys >> 2 | 0x20).to_string()),
        2 => KeyIn::Column(Column::Index(usize::from(keys >> 2))),
        _ => KeyIn::Column(Column::Name("a".to_owned())),
    };
    let _ = read(&keys, text);
}

/// Nothing comes out that is not in the text, and lines ascend.
fn read(keys: &KeyIn, text: &[u8]) -> Result<(), InputError> {
    let mut rows = Rows::new(text, keys)?;
    let (mut line, mut bytes) = (0, 0);
    while let Some(row) = rows.next_row()? {
        assert!(row.line > line, "line {} after {line}", row.line);
        line = row.line;
        bytes += row.value.len();
        assert!(bytes <= text.len(), "{bytes} bytes of {}", text.len());
        assert_eq!(row.key.is_some(), *keys != KeyIn::Nothing);
        assert!(row.key.is_none_or(|key| key.len() <= text.len()));
    }
    Ok(())
}

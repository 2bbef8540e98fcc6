//! A table for people: columns as wide as what is in them.

/// Rows under a heading.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

/// What stands between two columns.
const GAP: &str = "  ";

impl Table {
    /// A table without rows.
    pub(super) fn new(heading: &[&str]) -> Self {
        let heading = heading.iter().map(|text| (*text).to_owned());
        Self {
            rows: vec![heading.collect()],
        }
    }

    /// Adds a row, a text for each column.
    pub(super) fn row(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.rows[0].len(), "a text for each column");
        self.rows.push(row);
    }

    /// The heading and the rows.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| self.width(column))
            .collect();
        self.rows.iter().map(move |row| {
            let cells = row.iter().zip(&widths);
            let cells = cells.map(|(text, &width)| format!("{text:width$}"));
            let line = cells.collect::<Vec<_>>().join(GAP);
            line.trim_end().to_owned()
        })
    }

    fn width(&self, column: usize) -> usize {
        let texts = self.rows.iter().map(|row| row[column].chars().count());
        texts.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new(&["node", "state"]);
        table.row(vec!["12345".to_owned(), "alive".to_owned()]);
        table.row(vec!["1".to_owned(), "-".to_owned()]);
        let lines: Vec<String> = table.lines().collect();
        assert_eq!(lines, ["node   state", "12345  alive", "1      -"]);
    }
}

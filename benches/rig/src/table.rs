//! A table, for a terminal or in Markdown.

/// Rows of cells. The first column is aligned left, the others right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with this header.
    #[must_use]
    pub fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    /// Adds a row. Missing cells are empty.
    pub fn row(&mut self, mut cells: Vec<String>) {
        cells.resize(self.rows[0].len(), String::new());
        self.rows.push(cells);
    }

    /// Formats the table in aligned columns.
    #[must_use]
    pub fn text(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }

    /// Formats the table in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |row: &[String]| format!("| {} |\n", row.join(" | "));
        let rule = format!("|---|{}\n", "---:|".repeat(self.rows[0].len() - 1));
        let (head, rows) = self.rows.split_first().expect("there is a head");
        line(head) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["name", "ms"]);
        table.row(vec!["ours".to_owned(), "12".to_owned()]);
        table.row(vec!["a long name".to_owned()]);
        table
    }

    #[test]
    fn columns_line_up_in_text() {
        assert_eq!(table().text(), "name         ms\nours         12\na long name\n");
    }

    #[test]
    fn markdown_has_a_rule_below_its_head() {
        let text = table().markdown();

        assert_eq!(text, "| name | ms |\n|---|---:|\n| ours | 12 |\n| a long name |  |\n");
    }
}

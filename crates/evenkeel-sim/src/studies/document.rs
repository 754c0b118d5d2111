//! Documents with tables that a study replaces.

use std::{fs, io::ErrorKind, path::PathBuf};

use super::Failure;
use crate::report::Table;

/// A document that is written again after all its tables were replaced.
#[derive(Debug)]
pub(super) struct Document {
    path: PathBuf,
    text: String,
}

const END: &str = "<!-- end -->";

impl Document {
    /// Opens a document. If the file does not exist, the document begins empty.
    pub(super) fn open(path: PathBuf) -> Result<Self, Failure> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        };
        Ok(Self { path, text })
    }

    /// Replaces the table of this name, or adds it at the end.
    pub(super) fn table(&mut self, name: &str, table: &Table) {
        let begin = format!("<!-- table {name} -->");
        let new = format!("{begin}\n{}{END}", table.markdown());
        let found = self.text.find(&begin).and_then(|from| {
            let to = self.text[from..].find(END)?;
            Some(from..from + to + END.len())
        });
        match found {
            Some(old) => self.text.replace_range(old, &new),
            None => self.text = format!("{}\n{new}\n", self.text),
        }
        println!("{name}\n{}", table.plain());
    }

    /// Writes the document.
    pub(super) fn write(self) -> Result<(), Failure> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(self.path, self.text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_replaced_where_it_stands() {
        let text = "before\n<!-- table a -->\nold\n<!-- end -->\nafter\n".to_owned();
        let mut document = Document { path: PathBuf::new(), text };
        let mut table = Table::new(["x"]);
        table.row(["1"]);

        document.table("a", &table);
        document.table("b", &table);

        let new = "| x |\n| --- |\n| 1 |\n<!-- end -->";
        let expected =
            format!("before\n<!-- table a -->\n{new}\nafter\n\n<!-- table b -->\n{new}\n");
        assert_eq!(document.text, expected);
    }
}

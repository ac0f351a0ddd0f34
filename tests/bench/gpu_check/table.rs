//! Markdown tables with aligned columns.

/// A table under construction.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    columns: usize,
}

impl Table {
    /// Creates a table with these column names.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()], columns: head.len() }
    }

    /// Adds a row. Missing cells at the end are empty.
    pub(crate) fn row(&mut self, cells: &[String]) {
        let mut row: Vec<String> = cells.iter().map(|cell| cell.replace('|', "/")).collect();
        row.resize(self.columns, String::new());
        self.rows.push(row);
    }

    /// The table below a heading.
    pub(crate) fn titled(&self, title: &str) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or_default().max(2)
        };
        let widths: Vec<usize> = (0..self.columns).map(width).collect();
        let mut text = format!("## {title}\n\n");
        for (number, row) in self.rows.iter().enumerate() {
            // The first column is left-aligned, the others right-aligned.
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width - cell.chars().count());
                let (left, right) = if column == 0 { ("", padding.as_str()) } else { (padding.as_str(), "") };
                text.push_str(&format!("| {left}{cell}{right} "));
            }
            text.push_str("|\n");
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let rule = "-".repeat(width - 1);
                    text.push_str(&if column == 0 { format!("| -{rule} ") } else { format!("| {rule}: ") });
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

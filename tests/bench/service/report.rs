//! The report in Markdown.

use std::fmt::Write as _;

use crate::figures::{Figures, Short};

/// The target of a measure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// A minimum.
    AtLeast(f64),
    /// A maximum.
    AtMost(f64),
    /// No target.
    None,
}

impl Target {
    fn met(self, measured: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(measured >= least),
            Self::AtMost(most) => Some(measured <= most),
            Self::None => None,
        }
    }
}

/// A row of the table of measures.
#[derive(Debug)]
struct Row {
    measure: String,
    precision: String,
    unit: &'static str,
    target: Target,
    figures: Figures,
}

/// The table of measures, and detailed tables.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    details: String,
    /// Number of shutdowns of the programs, and of those with an exit status other than 0.
    stops: (usize, usize),
    /// The precision of the measured model.
    pub(crate) precision: String,
}

impl Report {
    /// Adds a measure and prints it.
    pub(crate) fn row(
        &mut self,
        measure: impl Into<String>,
        unit: &'static str,
        target: Target,
        figures: Figures,
    ) {
        let row = Row { measure: measure.into(), precision: self.precision.clone(), unit, target, figures };
        println!("{}", row.markdown());
        self.rows.push(row);
    }

    /// Adds text or a table under a heading, and prints it.
    pub(crate) fn detail(&mut self, title: &str, markdown: &str) {
        let precision = &self.precision;
        let text = format!("### {title} ({precision})\n\n{}\n\n", markdown.trim_end());
        print!("\n{text}");
        self.details.push_str(&text);
    }

    /// Counts a shutdown of the programs.
    pub(crate) fn clean_stop(&mut self, clean: bool) {
        self.stops.0 += 1;
        self.stops.1 += usize::from(!clean);
    }

    /// Adds the measure of shutdowns.
    pub(crate) fn report_stops(&mut self) {
        let (all, bad) = self.stops;
        self.precision = "all".to_owned();
        let name = format!("shutdowns with an exit status other than 0, of {all}");
        self.row(name, "", Target::AtMost(0.0), Figures::from_iter([bad as f64]));
    }

    /// The table of measures.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| measure | model | target | median | spread (rounds) | met |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let _ = writeln!(text, "{}", row.markdown());
        }
        text
    }

    /// The detailed tables.
    pub(crate) fn details(&self) -> &str {
        &self.details
    }

    /// The number of measures that miss their target.
    pub(crate) fn missed(&self) -> usize {
        self.rows.iter().filter(|row| row.target.met(row.figures.median()) == Some(false)).count()
    }
}

impl Row {
    fn markdown(&self) -> String {
        let Self { measure, precision, unit, target, figures } = self;
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        let wanted = match target {
            Target::AtLeast(least) => format!("≥ {least}{unit}"),
            Target::AtMost(most) => format!("≤ {most}{unit}"),
            Target::None => String::new(),
        };
        let met = match target.met(figures.median()) {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let spread = match figures.rounds() {
            1 => String::new(),
            rounds => format!("{}..{} ({rounds})", Short(figures.min()), Short(figures.max())),
        };
        let median = Short(figures.median());
        format!("| {measure} | {precision} | {wanted} | {median}{unit} | {spread} | {met} |")
    }
}

/// Prints the current measurement to standard error.
pub(crate) fn progress(text: &str) {
    eprintln!("… {text}");
}

/// A Markdown table.
#[derive(Debug)]
pub(crate) struct Table(String);

impl Table {
    /// Creates an empty table with these columns.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let rule = vec!["---"; columns.len()].join("|");
        Self(format!("| {} |\n|{rule}|\n", columns.join(" | ")))
    }

    /// Adds a row.
    pub(crate) fn line(&mut self, cells: &[String]) {
        let _ = writeln!(self.0, "| {} |", cells.join(" | "));
    }

    /// The Markdown text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

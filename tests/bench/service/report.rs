//! What was measured, as Markdown.

use std::fmt::Write as _;

use crate::figures::{Figures, Short};

/// What a measure has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// It is told for information.
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

/// A measure.
#[derive(Debug)]
struct Row {
    measure: String,
    precision: String,
    unit: &'static str,
    target: Target,
    figures: Figures,
}

/// Measures, and tables that tell more.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    details: String,
    /// How often the programs were stopped, and how often one of them ended badly then.
    stops: (usize, usize),
    /// The precision of the model that is being measured.
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

    /// Counts a stop of the programs.
    pub(crate) fn clean_stop(&mut self, clean: bool) {
        self.stops.0 += 1;
        self.stops.1 += usize::from(!clean);
    }

    /// Adds the measure of how the programs ended, once they all have.
    pub(crate) fn report_stops(&mut self) {
        let (all, bad) = self.stops;
        self.precision = "all".to_owned();
        let name = format!("stops at which a service did not end with status 0, of {all}");
        self.row(name, "", Target::AtMost(0.0), Figures::from_iter([bad as f64]));
    }

    /// All measures.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| measure | model | target | median | spread (rounds) | met |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let _ = writeln!(text, "{}", row.markdown());
        }
        text
    }

    /// The tables that tell more.
    pub(crate) fn details(&self) -> &str {
        &self.details
    }

    /// How many measures miss their target.
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

/// Says on the error output what is being measured now, apart from the report.
pub(crate) fn progress(text: &str) {
    eprintln!("… {text}");
}

/// A Markdown table of these columns.
#[derive(Debug)]
pub(crate) struct Table(String);

impl Table {
    /// A table without lines.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let rule = vec!["---"; columns.len()].join("|");
        Self(format!("| {} |\n|{rule}|\n", columns.join(" | ")))
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, cells: &[String]) {
        let _ = writeln!(self.0, "| {} |", cells.join(" | "));
    }

    /// The table's text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

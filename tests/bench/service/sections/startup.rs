//! Time until the programs are ready.

use muse_model::precision::Precision;

use crate::{
    figures::Figures,
    options::Options,
    programs::Programs,
    report::{Report, Target, progress},
};

/// Starts and stops the programs several times.
pub(crate) async fn measure(options: &Options, precision: Precision, report: &mut Report) {
    progress("starts");
    let mut figures = Figures::default();
    for _ in 0..options.starts {
        let programs = Programs::start(options, precision).await;
        figures.push(programs.ready_after.as_secs_f64());
        report.clean_stop(programs.stop().await);
    }
    report.row(
        "startup: from exec of the launcher until all services are ready",
        "s",
        Target::AtMost(1.5),
        figures,
    );
}

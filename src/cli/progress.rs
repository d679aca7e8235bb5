//! The progress of a long command on standard error: a bar on a terminal, otherwise a line every 10
//! seconds.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines without a terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Template of the bar.
const STYLE: &str = "{prefix} {bar:30} {pos} of {len}, {elapsed}, {eta} left; {msg}";

/// The progress of a known number of steps.
pub struct Progress {
    doing: &'static str,
    all: u64,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Progress {
    /// Starts the display; `doing` is a participle that names the work.
    pub fn new(doing: &'static str, all: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(STYLE)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(all).with_style(style).with_prefix(doing);
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Self {
            doing,
            all,
            bar,
            told: Instant::now(),
        }
    }

    /// Reports that `done` steps are done; `where_to` says where the work continues.
    pub fn reached(&mut self, done: u64, where_to: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(where_to.to_owned());
        } else if self.told.elapsed() >= BETWEEN_LINES && done < self.all {
            self.told = Instant::now();
            say!("{} {done} of {}; {where_to}", self.doing, self.all);
        }
    }

    /// Runs work that prints, and hides the bar meanwhile.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    /// Removes the bar.
    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

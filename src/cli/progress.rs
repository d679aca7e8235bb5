//! How far a command that takes long has come: a bar on a terminal, otherwise a line now and then, on standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// What is shown beside the bar.
const STYLE: &str = "{prefix} {bar:30} {pos} of {len}, {elapsed}, {eta} left; {msg}";

/// Shows how many of a number of steps are done.
pub struct Progress {
    doing: &'static str,
    all: u64,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Progress {
    /// Begins; `doing` says what is being done, as a participle.
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

    /// So many are done; `where_to` says where it goes on.
    pub fn reached(&mut self, done: u64, where_to: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(where_to.to_owned());
        } else if self.told.elapsed() >= BETWEEN_LINES && done < self.all {
            self.told = Instant::now();
            say!("{} {done} of {}; {where_to}", self.doing, self.all);
        }
    }

    /// Does something that prints, without the bar in its way.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    /// Takes the bar away.
    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
